#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/kernels_cuda.h"

namespace lithe {
namespace {

using namespace device;

// What is asked of `waiting` from here on starts when all of `of` so far is done. The event may go
// at once: the order stays, also in a recording.
void order(cudaStream_t waiting, cudaStream_t of, std::string_view op) {
  cudaEvent_t event = nullptr;
  cuda_check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), op, "creating an event");
  const cudaError_t recorded = cudaEventRecord(event, of);
  const cudaError_t ordered =
      recorded == cudaSuccess ? cudaStreamWaitEvent(waiting, event) : recorded;
  const cudaError_t destroyed = cudaEventDestroy(event);
  cuda_check(ordered, op, "ordering copies");
  cuda_check(destroyed, op, "ordering copies");
}

cudaStream_t copies_of(const KernelArgs& args) {
  return static_cast<cudaStream_t>(args.copy_stream);
}

// Behind all kernels so far: they have written the source, and read what lay in the target before.
void copy(const KernelArgs& args, cudaMemcpyKind direction) {
  const auto bytes = static_cast<size_t>(args.out[0].bytes());
  if (bytes == 0) {
    return;
  }
  order(copies_of(args), stream_of(args), args.op);
  cuda_check(cudaMemcpyAsync(args.out[0].data, args.in[0].data, bytes, direction, copies_of(args)),
             args.op, "copying");
}

}  // namespace

void offload_store_cuda(const KernelArgs& args) { copy(args, cudaMemcpyDeviceToHost); }
void offload_load_cuda(const KernelArgs& args) { copy(args, cudaMemcpyHostToDevice); }
// A copy of no bytes put nothing into the copy stream, which a recording may then not join.
void offload_wait_cuda(const KernelArgs& args) {
  if (args.out[0].bytes() != 0) {
    order(stream_of(args), copies_of(args), args.op);
  }
}

}  // namespace lithe
