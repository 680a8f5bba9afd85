// One registry of ops and shapes drives every proof: gradients in fp64, backends against each
// other, fused forms against their definitions, speed, and what is supported where.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "tensor/graph/graph.h"

namespace lithe::registry {

// How an input is filled. All fills are pure functions of (seed, case, input).
enum class Fill : uint8_t {
  normal,    // N(0, 1)
  positive,  // uniform in [0.5, 1.5]: divisors, variances
  distinct,  // a shuffled grid with gaps of 0.01 at least: maxima and top-k have no ties
  apart,     // N(0, 1) pushed at least 0.05 away from 0: kinks of relu
  ids,       // int64 in [0, limit)
  labels,    // int64 in [0, limit), about a quarter -100
  mask,      // boolean, about three quarters true, the first of each row true
  rng,       // int64 [2]: (seed, step)
  codes,     // uint8, all values
  ternary,   // -1, 0 or 1: sums that no type rounds
};

struct Input {
  Shape shape;
  Fill fill = Fill::normal;
  int64_t limit = 0;           // ids, labels
  bool differentiable = true;  // ignored for integer fills
  bool slot = false;           // a persistent slot (optimizer state); normal inputs are leaves
  bool follows_dtype = true;   // false: always fp32 (learning rate)
  bool widened = false;        // fp32 where the case runs in 16 bits (optimizer moments)
};

struct Case {
  const OpDef* op = nullptr;  // the op under test; it must occur in what `build` emits
  std::string name;           // shapes and options, readable
  std::vector<Input> inputs;
  // Emits the op; returns the outputs to compare. The first one is differentiated.
  std::function<std::vector<ValueId>(Graph&, std::span<const ValueId>)> build;
  bool halves = true;  // whether bf16 and fp16 are run too
  // What a pass would do to the graph with its gradients; may be empty.
  std::function<void(Graph&)> rewrite = nullptr;
};

// A family's cases: at least eight shapes an op, with sizes of 1, odd sizes, broadcasts and empty
// tensors where the op allows them.
void add_activation_cases(std::vector<Case>& cases);
void add_elementwise_cases(std::vector<Case>& cases);
void add_reduce_cases(std::vector<Case>& cases);
void add_layout_cases(std::vector<Case>& cases);
void add_matmul_cases(std::vector<Case>& cases);
void add_linear_packed_cases(std::vector<Case>& cases);
void add_softmax_cases(std::vector<Case>& cases);
void add_attention_cases(std::vector<Case>& cases);
void add_norm_cases(std::vector<Case>& cases);
void add_residual_norm_cases(std::vector<Case>& cases);
void add_embedding_cases(std::vector<Case>& cases);
void add_loss_cases(std::vector<Case>& cases);
void add_dropout_cases(std::vector<Case>& cases);
void add_offload_cases(std::vector<Case>& cases);
void add_conv_cases(std::vector<Case>& cases);
void add_top_k_cases(std::vector<Case>& cases);
void add_codec_cases(std::vector<Case>& cases);
void add_fused_codec_cases(std::vector<Case>& cases);
void add_linear_activation_cases(std::vector<Case>& cases);
void add_attention_codes_cases(std::vector<Case>& cases);
void add_update_cases(std::vector<Case>& cases);
void add_update_rows_cases(std::vector<Case>& cases);

std::vector<Case> all_cases();

}  // namespace lithe::registry
