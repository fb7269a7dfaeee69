// Features of the compiler and the processor.

#pragma once

#include <cstdint>

#if defined(__GNUC__) && defined(__AVX512BF16__) && defined(__AVX512VL__) && defined(__AVX512BW__) && \
    !defined(PANET_SCALAR)
#define PANET_BFLOAT16 1
#include <immintrin.h>
#else
#define PANET_BFLOAT16 0
#endif

#if PANET_BFLOAT16 && defined(__AMX_BF16__) && defined(__linux__) && !defined(PANET_NO_TILES)
#define PANET_TILES 1
#include <sys/syscall.h>
#include <unistd.h>
#else
#define PANET_TILES 0
#endif

#if defined(__GNUC__)
#define PANET_INLINE inline __attribute__((always_inline))
#define PANET_UNROLL _Pragma("GCC unroll 32")
#define PANET_RESTRICT __restrict__
#else
#define PANET_INLINE inline
#define PANET_UNROLL
#define PANET_RESTRICT
#endif
// The compiler does not know which memory the matrix unit's instructions read and write.
#define PANET_FENCE asm volatile("" ::: "memory")

namespace {

using i64 = std::int64_t;

}  // namespace
