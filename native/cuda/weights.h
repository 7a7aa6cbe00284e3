// Owns: a model's weights in device memory.
#pragma once

#include "cuda/pack.h"
