// q, k or v as int8 codes, for attention's fp32 kernels: decoded in the tile that they are copied
// to. Device-only.
#pragma once

#include "tensor/ops/attention_cuda.h"
#include "tensor/ops/saved_code_cuda.h"

namespace lithe::attention_cuda_kernels {

// copy() and decode() of a tile belong together, a wait for the copies between them and a barrier
// behind: what a thread copies it decodes itself.
struct CodedRows {
  using T = float;
  static constexpr bool kDecodes = true;
  device::CodeFrom from;

  // A place of eight numbers takes their codes, and behind them the word that their scale lies in.
  template <int kRows, int kDim, int kThreads>
  __device__ void copy(float* tile, int64_t at, int64_t stride, int rows, int dim) const {
    for_chunks<kRows, kDim, kThreads>([&](int row, int column) {
      const bool is_real = row < rows && column < dim;
      // What is not there is not read, and becomes codes and a scale of 0: any address will do.
      const int64_t i = is_real ? at + row * stride + column : 0;
      const uint32_t place = place_of<kDim>(tile, row, column);
      device::copy_few_async<8>(place, from.codes + i, is_real);
      device::copy_few_async<4>(
          place + 8, device::scale_word(from.scales, from.scale, i >> from.group_bits), is_real);
    });
  }

  template <int kRows, int kDim, int kThreads>
  __device__ void decode(float* tile, int64_t at, int64_t stride) const {
    for_chunks<kRows, kDim, kThreads>([&](int row, int column) {
      const uint32_t place = place_of<kDim>(tile, row, column);
      const uint4 word = device::load_shared(place);
      const float factor =
          device::scale_number(word.z, from.scale, (at + row * stride + column) >> from.group_bits);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t codes = (half == 0 ? word.x : word.y) ^ device::kSignBits8;
        uint4 numbers;
        numbers.x = __float_as_uint(device::shifted_byte(codes, 0) * factor);
        numbers.y = __float_as_uint(device::shifted_byte(codes, 1) * factor);
        numbers.z = __float_as_uint(device::shifted_byte(codes, 2) * factor);
        numbers.w = __float_as_uint(device::shifted_byte(codes, 3) * factor);
        device::store_shared(place + 16 * static_cast<uint32_t>(half), numbers);
      }
    });
  }

 private:
  template <int kDim>
  __device__ static uint32_t place_of(float* tile, int row, int column) {
    return device::shared_address(tile + row * padded_row<float>(kDim) + column);
  }
  // The thread's chunks of eight.
  template <int kRows, int kDim, int kThreads, typename F>
  __device__ static void for_chunks(const F& f) {
    constexpr int kChunks = kDim / 8;
    constexpr int kAll = kRows * kChunks;
#pragma unroll
    for (int first = 0; first < kAll; first += kThreads) {
      const int i = first + static_cast<int>(threadIdx.x);
      if (kAll % kThreads == 0 || i < kAll) {
        f(i / kChunks, i % kChunks * 8);
      }
    }
  }
};

void backward_single(const KernelArgs& args, const Geometry& geometry, bool tf32,
                     const CodedRows& q, const CodedRows& k, const CodedRows& v);

}  // namespace lithe::attention_cuda_kernels
