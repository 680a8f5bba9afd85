#include "optim/sgd.h"

#include "optim/state_slots.h"

namespace lithe {
namespace {

class Sgd final : public Optimizer {
 public:
  Sgd(const SgdAttrs& attrs, std::vector<std::string> no_decay)
      : attrs_(attrs), no_decay_(std::move(no_decay)) {}

  void add_state(SlotTable& slots, SlotId parameter) override {
    if (attrs_.momentum != 0) {
      add_moment_slot(slots, parameter, "velocity");
      add_state_slot(slots, parameter, "step", DType::i64, {1});
    }
  }

  UpdateOut update(Graph& graph, SlotId parameter, const ParameterGradient& p,
                   const UpdateInputs& inputs) const override {
    const SlotTable& slots = graph.slots();
    SgdAttrs attrs = attrs_;
    attrs.weight_decay = decays(slots[parameter].name, no_decay_) ? attrs_.weight_decay : 0;
    attrs.measures = inputs.measures;
    SgdInputs in{.weight = graph.leaf(parameter),
                 .gradient = p.gradient,
                 .lr = inputs.lr,
                 .grad_scale = inputs.grad_scale,
                 .rows = p.rows};
    if (attrs.momentum != 0) {
      in.velocity = graph.leaf(state_slot(slots, parameter, "velocity"));
      in.step = graph.leaf(state_slot(slots, parameter, "step"));
    }
    return sgd(graph, in, attrs);
  }

 private:
  SgdAttrs attrs_;
  std::vector<std::string> no_decay_;
};

}  // namespace

recipe::Schema sgd_options() {
  using recipe::Type;
  recipe::Schema schema;
  schema
      .add({.key = "momentum",
            .type = Type::number,
            .fallback = 0.9,
            .help = "share of the velocity kept; 0 needs no state",
            .min = 0,
            .max = 1})
      .add({.key = "nesterov",
            .type = Type::boolean,
            .fallback = false,
            .help = "look one step ahead"});
  return schema;
}

std::unique_ptr<Optimizer> make_sgd(const recipe::Recipe& section) {
  SgdAttrs attrs;
  attrs.momentum = section.number("sgd.momentum");
  attrs.nesterov = section.boolean("sgd.nesterov");
  attrs.weight_decay = section.number("weight_decay");
  if (attrs.nesterov && attrs.momentum == 0) {
    throw UsageError("optimizer.sgd.nesterov", "{}: needs momentum above 0",
                     section.where("sgd.nesterov"));
  }
  return std::make_unique<Sgd>(attrs, section.strings("no_decay"));
}

}  // namespace lithe
