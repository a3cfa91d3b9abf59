"""What would the posterior say, without waiting for it? Networks that learned inference on draws of a prior."""
