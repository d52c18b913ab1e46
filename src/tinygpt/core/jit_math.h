// Vector-friendly float32 exp and tanh for the kernels MLX builds at run time on CPU (included by core/_jit.py).
//
// MLX's own simd::exp goes through memory to reinterpret an integer as a float and its tanh is a library call, so
// compilers leave both scalar: 11-15 ns an element. These are the same mathematics without branches or calls, which
// GCC and Clang turn into vector code: 0.3-0.6 ns. Errors: exp 1 ulp, tanh 2 ulp; overflow to inf, underflow to 0
// (no subnormals), NaN stays NaN.
#pragma once
#include <cstring>

#include "mlx/backend/cpu/simd/simd.h"

namespace tinygpt {

inline float exp(float x) {
  float lim = x > 88.75f ? 88.75f : x;
  lim = lim < -87.5f ? -87.5f : lim;
  float n = __builtin_rintf(lim * 1.44269504f);
  float r = lim - n * 0.693359375f;  // ln 2 in two parts: the first has few bits, so that n * it is exact
  r = r + n * 2.12194440e-4f;
  // Minimax polynomial of e^r on |r| <= ln(2)/2 (Cephes expf).
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int whole = static_cast<int>(n), half = whole >> 1;  // 2^n in two factors: n = 128 and -127 have no exponent field
  int bits = (half + 127) << 23, rest_bits = (whole - half + 127) << 23;
  float scale, rest;
  std::memcpy(&scale, &bits, 4);
  std::memcpy(&rest, &rest_bits, 4);
  float y = p * scale * rest;
  y = x < -87.33654f ? 0.0f : y;
  return x != x ? x : y;
}

inline float tanh(float x) {
  float a = __builtin_fabsf(x), s = x * x;
  float far = 1.0f - 2.0f / (tinygpt::exp(2.0f * a) + 1.0f);
  // Near zero 1 - 2/(..) cancels: odd polynomial (Cephes tanhf).
  float p = -5.70498872745e-3f;
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  float near = p * s * x + x;
  return a < 0.625f ? near : __builtin_copysignf(far, x);
}

}  // namespace tinygpt

namespace mlx::core::simd {

template <>
inline Simd<float, 1> exp<float, 1>(Simd<float, 1> in) {
  return tinygpt::exp(in.value);
}

template <>
inline Simd<float, 1> tanh<float>(Simd<float, 1> in) {
  return tinygpt::tanh(in.value);
}

}  // namespace mlx::core::simd
