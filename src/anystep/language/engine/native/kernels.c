// The compiled kernels, one library: layers.py, attention.py and drawing.py call them.

#include "products.h"

#include "attention.h"

#include "drawing.h"
