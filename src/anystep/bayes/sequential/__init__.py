"""What is believed after one task should be where the next begins: learning over episodes and tasks."""
