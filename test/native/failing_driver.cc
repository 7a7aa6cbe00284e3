// Owns: what the engine asks of an NVIDIA driver before it opens the GPU backend, answered as by one with one card.
// Must never: ship. For tests of the engine process on machines without a card.
#define EXPORTED __attribute__((visibility("default")))

extern "C" {

EXPORTED int cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}
EXPORTED int cuInit(unsigned) { return 0; }
EXPORTED int cuDeviceGetCount(int* count) {
  *count = 1;
  return 0;
}

}  // extern "C"
