#include "optim/adamw.h"

#include "optim/state_slots.h"
#include "tensor/ops/moment_codes.h"

namespace lithe {
namespace {

class AdamW final : public Optimizer {
 public:
  AdamW(const AdamWAttrs& attrs, std::vector<std::string> no_decay, bool int8, bool int8_embeddings)
      : attrs_(attrs),
        no_decay_(std::move(no_decay)),
        int8_(int8),
        int8_embeddings_(int8_embeddings) {}

  void add_state(SlotTable& slots, SlotId parameter) override {
    const int64_t elements = slots[parameter].shape.numel();
    if (int8_ && elements >= kLeastInt8 && (int8_embeddings_ || !slots[parameter].lookup)) {
      add_state_slot(slots, parameter, kCodes, DType::u8, moment_codes_shape(elements));
      add_state_slot(slots, parameter, kScales, DType::f32, moment_scales_shape(elements));
    } else {
      add_moment_slot(slots, parameter, "m");
      add_moment_slot(slots, parameter, "v");
    }
    add_state_slot(slots, parameter, "step", DType::i64, {1});
  }

  UpdateOut update(Graph& graph, SlotId parameter, const ParameterGradient& p,
                   const UpdateInputs& inputs) const override {
    const SlotTable& slots = graph.slots();
    AdamWAttrs attrs = attrs_;
    attrs.weight_decay = decays(slots[parameter].name, no_decay_) ? attrs_.weight_decay : 0;
    attrs.measures = inputs.measures;
    attrs.no_gradient = p.gradient == kNoValue;
    const bool coded = has_state_slot(slots, parameter, kCodes);
    return adamw(
        graph,
        {.weight = graph.leaf(parameter),
         .gradient = p.gradient,
         .m = graph.leaf(state_slot(slots, parameter, coded ? kCodes : "m")),
         .v = graph.leaf(state_slot(slots, parameter, coded ? kScales : "v")),
         .step = graph.leaf(state_slot(slots, parameter, "step")),
         .lr = inputs.lr,
         .grad_scale = inputs.grad_scale,
         .copy = slots[parameter].copy == kNoSlot ? kNoValue : graph.leaf(slots[parameter].copy),
         .rows = p.rows},
        attrs);
  }
  bool writes_copy() const override { return true; }
  bool runs_without_gradient() const override { return true; }

 private:
  static constexpr int64_t kLeastInt8 = 4096;  // below it there is little to save
  static constexpr std::string_view kCodes = "codes";
  static constexpr std::string_view kScales = "scales";

  AdamWAttrs attrs_;
  std::vector<std::string> no_decay_;
  bool int8_, int8_embeddings_;
};

}  // namespace

recipe::Schema adamw_options() {
  using recipe::Type;
  recipe::Schema schema;
  schema
      .add({.key = "betas",
            .type = Type::number_list,
            .fallback = std::vector<double>{0.9, 0.999},
            .help = "decay rates of the two moments",
            .min = 0,
            .max = 1})
      .add({.key = "eps", .type = Type::number, .fallback = 1e-8, .help = "epsilon", .min = 0})
      .add({.key = "epsilon",
            .type = Type::string,
            .fallback = std::string("corrected"),
            .help = "where epsilon enters: corrected (PyTorch) or uncorrected second moment",
            .choices = {"corrected", "uncorrected"}})
      .add({.key = "state",
            .type = Type::string,
            .fallback = std::string("fp32"),
            .help = "how moments are kept: fp32, 8 bytes a weight; int8, 2.03, block-wise (tensors "
                    "below 4096 elements stay in fp32)",
            .choices = {"fp32", "int8"}})
      .add({.key = "int8_embeddings",
            .type = Type::boolean,
            .fallback = false,
            .help = "state int8: that of embedding tables too, whose rows are trained unevenly"});
  return schema;
}

std::unique_ptr<Optimizer> make_adamw(const recipe::Recipe& section) {
  const std::vector<double> betas = section.numbers("adamw.betas");
  if (betas.size() != 2 || betas[0] >= 1 || betas[1] >= 1) {
    throw UsageError("optimizer.adamw.betas", "{}: {} numbers given, two below 1 are wanted",
                     section.where("adamw.betas"), betas.size());
  }
  AdamWAttrs attrs;
  attrs.beta1 = betas[0];
  attrs.beta2 = betas[1];
  attrs.eps = section.number("adamw.eps");
  attrs.weight_decay = section.number("weight_decay");
  attrs.epsilon = section.string("adamw.epsilon") == "corrected" ? AdamEpsilon::corrected
                                                                 : AdamEpsilon::uncorrected;
  const bool int8 = section.string("adamw.state") == "int8";
  const bool int8_embeddings = section.boolean("adamw.int8_embeddings");
  if (int8_embeddings && !int8) {
    throw UsageError("optimizer.adamw.int8_embeddings", "{}: is for adamw.state: int8, not fp32",
                     section.where("adamw.int8_embeddings"));
  }
  return std::make_unique<AdamW>(attrs, section.strings("no_decay"), int8, int8_embeddings);
}

}  // namespace lithe
