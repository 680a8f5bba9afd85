// The recipe's `data` section for texts: GLUE tasks, tables with named columns, SQuAD files and
// synthetic ones.
#pragma once

#include "train/training_data.h"

namespace lithe {

// Adds the keys that only texts have.
void add_text_options(recipe::Schema& schema);

// As open_training_data(), for a text model.
TrainingData open_text_data(const recipe::Recipe& recipe, const nn::Model& model);

}  // namespace lithe
