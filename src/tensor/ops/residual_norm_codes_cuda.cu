// Forward is a variant of residual_norm_cuda.cu's kernel.
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/residual_norm_codes.h"
#include "tensor/ops/residual_norm_grad_cuda.h"

namespace lithe {

using namespace device;

void residual_norm_codes_grad_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<ResidualNormCodesGradAttrs>();
  expect_walked_in_codes(args, attrs.code);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    if constexpr (!std::is_same_v<T, double>) {
      const ResidualNormGradOut<T> out(args, attrs.grad);
      auto p = residual_norm_grad_params<T>(args, attrs.grad, nullptr, out.total, out.dy);
      if (p.rows == 0) {
        launch_plain<T>(args, p, out.dgamma, out.dbeta, out.dbias);  // zeros
        return;
      }
      p.code = code_from(attrs.code, args.in[1], args.in[7]);
      launch_walk<true, T>(args, p, norm_blocks(p.rows, p.size, args.in[0].dtype), out.dgamma,
                           out.dbeta, out.dbias);
    }
  });
}

}  // namespace lithe
