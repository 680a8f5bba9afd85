#include "optim/adamw.h"

#include "optim/state_slots.h"

namespace lithe {
namespace {

class AdamW final : public Optimizer {
 public:
  AdamW(const AdamWAttrs& attrs, std::vector<std::string> no_decay)
      : attrs_(attrs), no_decay_(std::move(no_decay)) {}

  void add_state(SlotTable& slots, SlotId parameter) override {
    add_moment_slot(slots, parameter, "m");
    add_moment_slot(slots, parameter, "v");
    add_state_slot(slots, parameter, "step", DType::i64, {1});
  }

  UpdateOut update(Graph& graph, SlotId parameter, ValueId gradient,
                   const UpdateInputs& inputs) const override {
    const SlotTable& slots = graph.slots();
    AdamWAttrs attrs = attrs_;
    attrs.weight_decay = decays(slots[parameter].name, no_decay_) ? attrs_.weight_decay : 0;
    attrs.measures = inputs.measures;
    return adamw(
        graph,
        {.weight = graph.leaf(parameter),
         .gradient = gradient,
         .m = graph.leaf(state_slot(slots, parameter, "m")),
         .v = graph.leaf(state_slot(slots, parameter, "v")),
         .step = graph.leaf(state_slot(slots, parameter, "step")),
         .lr = inputs.lr,
         .grad_scale = inputs.grad_scale,
         .copy = slots[parameter].copy == kNoSlot ? kNoValue : graph.leaf(slots[parameter].copy)},
        attrs);
  }
  bool writes_copy() const override { return true; }

 private:
  AdamWAttrs attrs_;
  std::vector<std::string> no_decay_;
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
            .choices = {"corrected", "uncorrected"}});
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
  return std::make_unique<AdamW>(attrs, section.strings("no_decay"));
}

}  // namespace lithe
