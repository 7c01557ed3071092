#pragma once
// CPU kernels live in <op>_cpu.cpp, which is compiled once per instruction set with PYACTION_SIMD_LEVEL set to
// the namespace it fills: pyaction::baseline, pyaction::avx2, pyaction::avx512. Each fills one table of
// function pointers; the host code picks a table at run time with select_simd().
//
// Such a file includes no standard header that holds inline functions: the linker would keep one copy of them,
// perhaps the AVX-512 one, for every caller (tests/test_native.py looks for such symbols).

namespace pyaction {

// Of the instruction set that the including file is compiled for.
#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

enum class SimdLevel { kBaseline, kAvx2, kAvx512 };

// The best level that this build and this CPU share, or a lower one named by PYACTION_SIMD. Read once.
SimdLevel simd_level();

// "baseline", "avx2" or "avx512".
const char* simd_level_name(SimdLevel level);

// Kernels that work on rows, a register at a time, take short rows number by number: there a narrower register is
// faster.
constexpr int kLongRow = 1 << 30;

inline SimdLevel level_for_row(int floats) {
  const SimdLevel widest = floats < 8 ? SimdLevel::kBaseline : floats < 16 ? SimdLevel::kAvx2 : SimdLevel::kAvx512;
  const SimdLevel level = simd_level();
  return level < widest ? level : widest;
}

template <typename Kernels>
const Kernels& select_simd(const Kernels& baseline, const Kernels& avx2, const Kernels& avx512, int row) {
  const SimdLevel level = level_for_row(row);
  return level == SimdLevel::kAvx512 ? avx512 : level == SimdLevel::kAvx2 ? avx2 : baseline;
}

} // namespace pyaction

#if defined(__x86_64__)
// Declares `extern const Type name` in the namespace of every level, and `select_<name>()` which picks one, for rows of
// so many floats where rows may be short.
#define PYACTION_SIMD_TABLE(Type, name)                                      \
  namespace baseline {                                                       \
  extern const Type name;                                                    \
  }                                                                          \
  namespace avx2 {                                                           \
  extern const Type name;                                                    \
  }                                                                          \
  namespace avx512 {                                                         \
  extern const Type name;                                                    \
  }                                                                          \
  static inline const Type& select_##name(int row = kLongRow) {              \
    return select_simd<Type>(baseline::name, avx2::name, avx512::name, row); \
  }
#else
#define PYACTION_SIMD_TABLE(Type, name)              \
  namespace baseline {                               \
  extern const Type name;                            \
  }                                                  \
  static inline const Type& select_##name(int = 0) { \
    return baseline::name;                           \
  }
#endif
