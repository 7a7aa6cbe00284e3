// Owns: the question to each system. An instruction that the system does not vouch for is never executed.
#include "cpu/isa_arm.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__) && defined(_WIN32)
#include <windows.h>
#endif

namespace ringside::cpu {

#if defined(__aarch64__) && defined(__linux__)

ArmFeatures arm_features() {
  // The second word is 0 on kernels that do not know it.
  return {(getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0, (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0};
}

#elif defined(__aarch64__) && defined(__APPLE__)

namespace {

bool has(const char* feature) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
}

}  // namespace

ArmFeatures arm_features() { return {has("hw.optional.arm.FEAT_DotProd"), has("hw.optional.arm.FEAT_I8MM")}; }

#elif defined(__aarch64__) && defined(_WIN32)

ArmFeatures arm_features() {
  ArmFeatures features;
  // Older development kits do not name these.
#if defined(PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE)
  features.dotprod = IsProcessorFeaturePresent(PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE) != 0;
#endif
#if defined(PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE)
  features.i8mm = IsProcessorFeaturePresent(PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE) != 0;
#endif
  return features;
}

#else

ArmFeatures arm_features() { return {}; }

#endif

}  // namespace ringside::cpu
