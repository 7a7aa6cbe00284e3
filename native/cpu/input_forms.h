// Owns: in which forms the matrices of a model read their inputs, so that none is made that nobody reads.
#pragma once

#include "cpu/weights.h"

namespace ringside::cpu {

// Coded matrices read codes with the scale of each group of so many columns; the others read fp32. A code has one byte
// for 4-bit weights, whose own rounding is far coarser, and two where any of the weights has 8 bits: rounding inputs to
// one byte would cost such a model more than its weights' rounding does (docs/PERFORMANCE.md, alignment).
struct InputForms {
  bool floats = false;
  bool groups_of_32 = false, groups_of_64 = false, groups_of_128 = false;
  bool has_8_bit_weights = false;

  int code_bytes() const { return has_8_bit_weights ? 2 : 1; }

  void add(const PackedMatrix& w) {
    if (w.rows == 0) return;
    if (!w.is_coded()) {
      floats = true;
      return;
    }
    (w.group_columns == 32 ? groups_of_32 : w.group_columns == 64 ? groups_of_64 : groups_of_128) = true;
    has_8_bit_weights |= w.format == PackedFormat::kQ8;
  }
  void add(const InputForms& other) {
    floats |= other.floats;
    groups_of_32 |= other.groups_of_32;
    groups_of_64 |= other.groups_of_64;
    groups_of_128 |= other.groups_of_128;
    has_8_bit_weights |= other.has_8_bit_weights;
  }
  static InputForms of(const PackedMatrix& w) {
    InputForms forms;
    forms.add(w);
    return forms;
  }
};

struct LayerForms {
  explicit LayerForms(const Layer& layer) {
    attention.add(layer.qkv);
    attention.add(layer.output_gate);
    mixed.add(layer.dense);
    if (layer.router.is_coded()) mlp.add(layer.router);  // else it reads the normed rows, which are always there
    add(layer.always);
    for (const Mlp& expert : layer.experts) add(expert);
  }
  // What buffers must be able to hold: codes of all kinds, but of the inputs in fp32 only those of MLPs.
  InputForms buffers() const {
    InputForms forms = attention;
    forms.add(mixed);
    forms.floats = false;
    forms.add(mlp);
    forms.add(inner);
    return forms;
  }

  InputForms attention;  // what qkv and the output gate read
  InputForms mixed;      // what the attention's output projection reads
  InputForms mlp;        // what gates and ups read, and a coded router
  InputForms inner;      // what the downs read

 private:
  void add(const Mlp& of) {
    mlp.add(of.gate);
    mlp.add(of.up);
    inner.add(of.down);
  }
};

}  // namespace ringside::cpu
