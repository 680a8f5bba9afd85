#include "compress/codec.h"

#include <algorithm>

#include "compress/codec_format.h"
#include "compress/codec_masks.h"
#include "compress/codec_norms.h"
#include "compress/codec_rule.h"
#include "compress/host_copies.h"
#include "compress/rerun.h"
#include "compress/saved_values.h"
#include "recipe/nearest.h"
#include "tensor/core/glob.h"
#include "tensor/ops/attention.h"

namespace lithe {
namespace {

// Readers that stand so close share one decoded copy: between them little else is allocated.
constexpr int kNear = 2;

// As the authors' code stores them (fixed formats, whole probabilities, masks in bytes), and what a
// native engine should prefer.
constexpr std::string_view kOriginalEdges[] = {"attention:q3.4",
                                               "dropped_probabilities:regenerate",
                                               "probabilities:uq0.8",
                                               "activation_output:q3.4",
                                               "gelu_input:q2.1",
                                               "frozen_norm_output:top10%/global",
                                               "norm_statistics:regenerate",
                                               "dropout_mask:bytes"};
constexpr std::string_view kSlimFitEdges[] = {
    "attention:int8/64",   "attention_output:derive",      "dropped_probabilities:regenerate",
    "probabilities:uint8", "activation_output:quarter/64", "linear_input:half",
    "gelu_input:q2.1",     "frozen_norm_input:int4/64",    "norm_input:half"};

// A saved value, or what it is for some of its readers, and what shall become of it.
struct Choice {
  SavedValue saved;
  CodecFormat format;
  std::string refused;
  bool stays = false;       // other readers keep the value
  bool normalizes = false;  // a frozen norm's output is kept in the place of the value, its input
  Rerun::Way rerun = Rerun::Way::none;
};

// Moves the readers that can do without the value to the result: attention's gradients.
std::vector<SavedReader> take_deriving(const Graph& g, SavedValue& v) {
  const auto at =
      std::stable_partition(v.readers.begin(), v.readers.end(), [&](const SavedReader& r) {
        return g.node(r.node).op != &attention_grad_op || r.input != kAttentionGradOutput;
      });
  std::vector<SavedReader> out(at, v.readers.end());
  v.readers.erase(at, v.readers.end());
  return out;
}

class Codec final : public Pass {
 public:
  explicit Codec(const recipe::Recipe& section) : least_bytes_(section.integer("min_bytes")) {
    const CodecFormat::Options options{*dtype_from_name(section.string("scales")),
                                       section.boolean("stochastic")};
    for (const std::string& text : section.strings("edges")) {
      rules_.emplace_back(text, options);
    }
    own_rules_ = rules_.size();
    const std::string preset = section.string("preset");
    const auto add = [&](std::span<const std::string_view> edges) {
      for (std::string_view text : edges) {
        rules_.emplace_back(std::string(text), options);
      }
    };
    if (preset == "slimfit_original") {
      add(kOriginalEdges);
    } else if (preset == "slimfit") {
      add(kSlimFitEdges);
    } else if (rules_.empty()) {
      throw UsageError("codec", "{}: nothing is chosen; give a preset or edges, or codec: off",
                       section.where("preset"));
    }
  }

  std::string_view name() const override { return "codec"; }
  Stage stage() const override { return Stage::graph; }

  // Masks that shall be stored are made before gradients are built, which read them then.
  void before_gradients(const PassTarget& target) const override {
    Graph& g = *target.graph;
    const std::vector<SavedValue> sites = dropout_sites(g);
    expect_dropouts(g, sites);
    std::vector<StoredMask> masks;
    for (const SavedValue& v : sites) {
      const auto rule = std::find_if(rules_.begin(), rules_.end(), [&](const CodecRule& r) {
        return r.roles == saved_role::kDropoutMask && r.chooses(g, v);
      });
      if (rule != rules_.end() && rule->format.kind() == CodecFormat::Kind::mask &&
          g.shape(v.value).numel() >= least_bytes_) {
        masks.push_back({v.value, rule->format.packed()});
      }
    }
    store_dropout_masks(g, masks);
  }

  std::vector<Site> match(const PassTarget& target) const override {
    const Graph& g = *target.graph;
    expect_names(g);
    std::vector<Site> sites;
    for (const Choice& c : choices(g)) {
      sites.push_back({g.name(c.saved.value), c.format.name(), g.shape(c.saved.value), c.refused});
    }
    return sites;
  }

  PassEstimate estimate(const PassTarget& target) const override {
    const Graph& g = *target.graph;
    PassEstimate out;
    for (const Choice& c : choices(g)) {
      if (c.refused.empty()) {
        out.bytes[static_cast<size_t>(MemoryClass::saved_activations)] +=
            coded_bytes(g, c) - plain_bytes(g, c);
        // Five of the encoding, one of each decoding.
        const size_t encoding = c.rerun == Rerun::Way::none ? 5 : 0;
        out.flops += static_cast<double>(g.shape(c.saved.value).numel()) *
                     static_cast<double>(encoding + runs_of(g, c.saved).size());
      }
    }
    for (const SavedValue& v : saved_values(g)) {
      if ((v.roles & saved_role::kDropoutMask) != 0) {
        out.bytes[static_cast<size_t>(MemoryClass::saved_activations)] += g.bytes(v.value);
      }
    }
    return out;
  }

  PassReport apply(const PassTarget& target) override {
    Graph& g = *target.graph;
    expect_names(g);
    const ScopeId scope = g.current_scope();
    const Phase phase = g.phase();
    PassReport report;
    report.name = "codec";
    int64_t before = 0;
    int64_t after = 0;
    int64_t refused = 0;
    int64_t on_host = 0;
    std::vector<SavedValue> offloaded;
    reruns_.clear();
    // What is computed again reads its operands instead, so that comes first.
    for (const bool again : {true, false}) {
      for (const Choice& c : choices(g)) {
        if ((c.format.kind() == CodecFormat::Kind::recompute) != again) {
          continue;
        }
        if (!c.refused.empty()) {
          ++refused;
          continue;
        }
        before += plain_bytes(g, c);
        after += coded_bytes(g, c);
        ++report.sites;
        if (again) {
          rerun(g, c);
        } else if (c.format.kind() == CodecFormat::Kind::derive) {
          derive(g, c.saved);
        } else if (c.format.kind() == CodecFormat::Kind::offload) {
          offloaded.push_back(c.saved);
          on_host += g.bytes(c.saved.value);
        } else {
          code(g, c);
        }
      }
    }
    offload(g, offloaded);
    g.set_cursor(kNoNode);
    g.set_phase(phase);
    g.set_scope(scope);
    constexpr double kMiB = 1 << 20;
    report.what = fmt::format(
        "{} values of {:.2f} MiB in {:.2f}{}{}", report.sites, static_cast<double>(before) / kMiB,
        static_cast<double>(after) / kMiB,
        on_host == 0 ? ""
                     : fmt::format(", {:.2f} on the host", static_cast<double>(on_host) / kMiB),
        refused == 0 ? "" : fmt::format(", {} refused", refused));
    return report;
  }

  std::string invert(const PassTarget& /*target*/) override {
    return "what a codec dropped is gone; build the graph again without the pass";
  }

 private:
  // Every pattern of the recipe names a forward value, if none that backward reads in this step.
  void expect_names(const Graph& g) const {
    for (size_t i = 0; i < own_rules_; ++i) {
      const CodecRule& rule = rules_[i];
      if (rule.pattern == "*" || rule.roles == saved_role::kDropoutMask) {
        continue;
      }
      std::string best;
      size_t distance = SIZE_MAX;
      bool found = false;
      for (NodeId n = g.first(); n != kNoNode && !found; n = g.next(n)) {
        if (g.node(n).phase != Phase::forward) {
          continue;
        }
        for (ValueId v : g.outputs(n)) {
          const std::string name = g.name(v);
          found = found || glob_match(rule.pattern, name);
          if (const size_t d = recipe::edit_distance(rule.pattern, name); d < distance) {
            distance = d;
            best = name;
          }
        }
      }
      if (!found) {
        throw UsageError("codec.edges", "'{}' names no forward value; the nearest is '{}'",
                         rule.pattern, best);
      }
    }
  }

  // The same of patterns for masks, before dropouts are rewritten.
  void expect_dropouts(const Graph& g, const std::vector<SavedValue>& sites) const {
    for (size_t i = 0; i < own_rules_; ++i) {
      const CodecRule& rule = rules_[i];
      if (rule.roles != saved_role::kDropoutMask || rule.pattern == "*" ||
          std::any_of(sites.begin(), sites.end(),
                      [&](const SavedValue& v) { return rule.chooses(g, v); })) {
        continue;
      }
      throw UsageError("codec.edges", "'{}' names no dropout; {}", rule.pattern,
                       sites.empty() ? "there is none in this model"
                                     : fmt::format("one is '{}'", g.name(sites.front().value)));
    }
  }

  // The first rule that names a value is its own. Where `derive` leaves other readers, the next one
  // is theirs: so what attention's gradient computes does not depend on what else is trained.
  std::vector<Choice> choices(const Graph& g) const {
    std::vector<Choice> out;
    const std::vector<SavedValue> all = saved_values(g);
    std::vector<bool> kept(static_cast<size_t>(g.value_count()), false);
    for (const SavedValue& v : all) {
      kept[static_cast<size_t>(v.value)] = true;
    }
    for (SavedValue v : all) {
      if ((v.roles & (saved_role::kStatistics | saved_role::kDropoutMask)) != 0) {
        continue;
      }
      for (const CodecRule& rule : rules_) {
        if (!rule.chooses(g, v)) {
          continue;
        }
        const CodecFormat format = rule.format.of(g.dtype(v.value));
        if (format.kind() == CodecFormat::Kind::derive) {
          const SavedValue derived{v.value, v.roles, take_deriving(g, v)};
          out.push_back({derived, format, refusal(g, derived, format), !v.readers.empty()});
          // Nothing is computed again from what is not there either.
          kept[static_cast<size_t>(v.value)] = !out.back().refused.empty() || !v.readers.empty();
          if (!derived.readers.empty() && !v.readers.empty()) {
            continue;
          }
        } else if (format.kind() != CodecFormat::Kind::keep) {
          out.push_back(
              {v, format, refusal(g, v, format, rule.normalizes()), false, rule.normalizes()});
          Choice& choice = out.back();
          if (choice.refused.empty() && choice.normalizes) {
            kept[static_cast<size_t>(v.value)] = false;
          }
          if (choice.refused.empty() && format.kind() == CodecFormat::Kind::recompute) {
            Rerun found =
                find_rerun(g, v.value, [&](ValueId in) { return kept[static_cast<size_t>(in)]; });
            choice.refused = std::move(found.refusal);
            choice.rerun = found.way;
            kept[static_cast<size_t>(v.value)] = found.way == Rerun::Way::none;
          }
        }
        break;
      }
    }
    add_statistics(g, all, out);
    return out;
  }

  // Statistics of norms, which follow from an input that is kept as it is.
  void add_statistics(const Graph& g, const std::vector<SavedValue>& all,
                      std::vector<Choice>& out) const {
    for (const SavedValue& v : all) {
      if ((v.roles & saved_role::kNormStatistics) == 0) {
        continue;
      }
      const auto rule = std::find_if(rules_.begin(), rules_.end(), [&](const CodecRule& r) {
        return r.roles == saved_role::kNormStatistics && r.chooses(g, v);
      });
      if (rule == rules_.end() || rule->format.kind() == CodecFormat::Kind::keep) {
        continue;
      }
      const ValueId x = viewed(g, norm_input_of(g, v));
      const auto coded = std::find_if(out.begin(), out.end(), [&](const Choice& c) {
        return c.saved.value == x && c.refused.empty();
      });
      if (coded == out.end()) {
        out.push_back({v, rule->format, statistics_refusal(g, v)});
      } else if (!coded->normalizes) {
        out.push_back({v, rule->format, "the norm's input is coded"});
      }
    }
  }

  std::string refusal(const Graph& g, const SavedValue& v, const CodecFormat& format,
                      bool normalizes = false) const {
    if (g.value(v.value).is_output) {
      return "is an output of the step and lives to its end anyway";
    }
    if (g.bytes(v.value) < least_bytes_) {
      return fmt::format("has {} bytes, fewer than min_bytes", g.bytes(v.value));
    }
    if (format.draws() && rng_of(g) == kNoValue) {
      return "stochastic rounding draws random numbers, which a model without dropout has none of";
    }
    if (format.kind() == CodecFormat::Kind::derive && v.readers.empty()) {
      return "is no output of fused attention; only attention's gradient does without";
    }
    if (normalizes) {
      if (std::string why = normalized_refusal(g, v); !why.empty()) {
        return why;
      }
    }
    return format.refusal(g.dtype(v.value), g.shape(v.value));
  }

  // What the choice is instead of.
  static int64_t plain_bytes(const Graph& g, const Choice& c) {
    return c.stays ? 0 : g.bytes(c.saved.value);
  }
  static int64_t coded_bytes(const Graph& g, const Choice& c) {
    return c.format.bytes(g.dtype(c.saved.value), g.shape(c.saved.value)) -
           (c.normalizes ? normalized_saving(g, c.saved) : 0);
  }

  static ValueId rng_of(const Graph& g) {
    for (ValueId v : g.leaves()) {
      if (g.value(v).is_input && g.name(v) == "rng") {
        return v;
      }
    }
    return kNoValue;
  }

  bool is_rerun(NodeId n) const {
    return std::find(reruns_.begin(), reruns_.end(), n) != reruns_.end();
  }

  // Runs of readers that share a decoded copy. What is computed again may take its copy's place, so
  // it shares none.
  std::vector<std::vector<SavedReader>> runs_of(const Graph& g, const SavedValue& v) const {
    std::vector<std::vector<SavedReader>> runs;
    for (const SavedReader& reader : v.readers) {
      bool near = false;
      if (!runs.empty() && !is_rerun(reader.node) && !is_rerun(runs.back().back().node)) {
        NodeId n = runs.back().back().node;
        for (int step = 0; step <= kNear && n != kNoNode && !near; ++step, n = g.next(n)) {
          near = n == reader.node;
        }
      }
      if (!near) {
        runs.emplace_back();
      }
      runs.back().push_back(reader);
    }
    return runs;
  }

  // `v` is the value itself or a view of it: the same view of `whole`, at the cursor.
  static ValueId view_of(Graph& g, ValueId v, ValueId value, ValueId whole) {
    if (v == value) {
      return whole;
    }
    const NodeId n = g.value(v).producer;
    const ValueId in = view_of(g, g.in(n, g.node(n).op->aliases[0].input), value, whole);
    std::vector<ValueId> inputs(g.inputs(n).begin(), g.inputs(n).end());
    inputs[static_cast<size_t>(g.node(n).op->aliases[0].input)] = in;
    const Attrs attrs = g.node(n).attrs;
    return g.output(g.emit_node(*g.node(n).op, inputs, attrs), g.value(v).output_index);
  }

  // Where what `reader` shall read is restored: before the decodings and views that stand right in
  // front of it, so that decodings are neighbours, which a device may run as one.
  static NodeId place_before(const Graph& g, NodeId reader) {
    NodeId place = reader;
    for (NodeId n = g.node(reader).previous; n != kNoNode; n = g.node(n).previous) {
      const OpDef* op = g.node(n).op;
      if (g.node(n).phase == Phase::forward ||
          (op != &quantize_decode_op && op->aliases[0].kind != Alias::view)) {
        break;
      }
      place = op == &quantize_decode_op ? n : place;
    }
    return place;
  }

  // Each run of readers reads what `restore` emits right before it.
  template <typename Restore>
  void redirect(Graph& g, const SavedValue& saved, Restore&& restore) {
    for (const std::vector<SavedReader>& run : runs_of(g, saved)) {
      redirect_run(g, saved.value, run, restore);
    }
  }
  template <typename Restore>
  static void redirect_run(Graph& g, ValueId value, const std::vector<SavedReader>& run,
                           Restore&& restore) {
    g.set_phase(Phase::backward);
    g.set_cursor(place_before(g, run.front().node));
    g.set_scope(g.node(run.front().node).scope);
    const ValueId whole = restore();
    g.set_cursor(run.front().node);
    std::vector<std::pair<ValueId, ValueId>> views;  // of the run so far
    for (const SavedReader& reader : run) {
      const ValueId v = g.in(reader.node, reader.input);
      const auto known = std::find_if(views.begin(), views.end(),
                                      [&](const auto& pair) { return pair.first == v; });
      if (known == views.end()) {
        views.emplace_back(v, view_of(g, v, value, whole));
        g.replace_input(reader.node, reader.input, views.back().second);
      } else {
        g.replace_input(reader.node, reader.input, known->second);
      }
    }
  }

  void code(Graph& g, const Choice& c) {
    const ValueId value = c.saved.value;
    const NodeId made = g.value(value).producer;
    const CodecFormat& format = c.format;
    if (c.normalizes) {
      keep_normalized(g, c.saved, format, format.draws() ? rng_of(g) : kNoValue);
      return;
    }
    g.set_phase(Phase::forward);
    g.set_cursor(g.next(made));
    g.set_scope(g.node(made).scope);
    const Coded coded =
        format.encode(g, value, g.name(value), format.draws() ? rng_of(g) : kNoValue);
    redirect(g, c.saved, [&] { return format.decode(g, coded); });
  }

  // Attention's gradient does without its output.
  static void derive(Graph& g, const SavedValue& saved) {
    for (const SavedReader& reader : saved.readers) {
      g.replace_input(reader.node, reader.input, kNoValue);
    }
  }

  // To the host behind their producers, and back in the order of the readers.
  void offload(Graph& g, const std::vector<SavedValue>& saved) {
    if (saved.empty()) {
      return;
    }
    std::vector<int> position(static_cast<size_t>(g.node_count()), 0);
    int count = 0;
    for (NodeId n = g.first(); n != kNoNode; n = g.next(n)) {
      position[static_cast<size_t>(n)] = count++;
    }
    struct Return {
      size_t of = 0;
      std::vector<SavedReader> run;
    };
    std::vector<ValueId> values;
    std::vector<Return> returns;
    for (const SavedValue& s : saved) {
      for (std::vector<SavedReader>& run : runs_of(g, s)) {
        returns.push_back({values.size(), std::move(run)});
      }
      values.push_back(s.value);
    }
    std::stable_sort(returns.begin(), returns.end(), [&](const Return& a, const Return& b) {
      return position[static_cast<size_t>(a.run.front().node)] <
             position[static_cast<size_t>(b.run.front().node)];
    });
    const std::vector<ValueId> on_host = emit_host_stores(g, values);
    std::vector<ValueId> needed;
    needed.reserve(returns.size());
    for (const Return& r : returns) {
      needed.push_back(on_host[r.of]);
    }
    HostLoads loads(g, std::move(needed));
    for (const Return& r : returns) {
      redirect_run(g, values[r.of], r.run, [&] { return loads.next(); });
    }
  }

  void rerun(Graph& g, const Choice& c) {
    if ((c.saved.roles & saved_role::kNormStatistics) != 0) {
      regenerate_statistics(g, c.saved);
      return;
    }
    redirect(g, c.saved, [&] {
      const ValueId again = emit_rerun(g, c.saved.value, c.rerun);
      reruns_.push_back(g.value(again).producer);
      return again;
    });
  }

  std::vector<CodecRule> rules_;
  size_t own_rules_ = 0;  // those of `edges`; the preset's stand behind them
  int64_t least_bytes_ = 0;
  std::vector<NodeId> reruns_;  // in the graph that is rewritten
};

recipe::Schema options() {
  using recipe::Type;
  recipe::Schema schema;
  schema
      .add({.key = "preset",
            .type = Type::string,
            .fallback = std::string("none"),
            .help = "rules that stand behind those of edges",
            .choices = {"none", "slimfit_original", "slimfit"}})
      .add({.key = "edges",
            .type = Type::string_list,
            .fallback = std::vector<std::string>{},
            .help = "what is kept how, first match first: role:codec, role@pattern:codec or "
                    "pattern:codec, as gelu_input:q2.1"})
      .add({.key = "scales",
            .type = Type::string,
            .fallback = std::string("bf16"),
            .help = "type of the scales of int8 and int4",
            .choices = {"bf16", "fp16", "fp32"}})
      .add({.key = "stochastic",
            .type = Type::boolean,
            .fallback = false,
            .help = "int8 and int4 round up or down at random, unbiased"})
      .add({.key = "min_bytes",
            .type = Type::integer,
            .fallback = int64_t{1024},
            .help = "smaller values are kept as they are",
            .min = 0});
  return schema;
}

std::unique_ptr<Pass> make(const recipe::Recipe& section) {
  return std::make_unique<Codec>(section);
}

}  // namespace

const PassKind codec_pass = {"codec", "keep saved activations in fewer bits", options, make};

}  // namespace lithe
