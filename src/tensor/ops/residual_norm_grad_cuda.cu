#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/residual_norm_grad_cuda.h"

namespace lithe {

using namespace device;

void residual_norm_grad_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<ResidualNormGradAttrs>();
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    const ResidualNormGradOut<T> out(args, attrs);
    const auto p = residual_norm_grad_params<T>(args, attrs, args.in[1].as<T>(), out.total, out.dy);
    if constexpr (!std::is_same_v<T, double>) {
      const int64_t blocks = norm_blocks(p.rows, p.size, args.in[0].dtype);
      if (blocks > 0) {
        launch_walk<false, T>(args, p, blocks, out.dgamma, out.dbeta, out.dbias);
        return;
      }
    }
    launch_plain<T>(args, p, out.dgamma, out.dbeta, out.dbias);
  });
}

}  // namespace lithe
