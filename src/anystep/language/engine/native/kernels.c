// The compiled kernels, one library: layers.py and attention.py call them.

#include "products.h"

#include "attention.h"
