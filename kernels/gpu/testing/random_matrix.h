#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common/check.h"
#include "common/dtype.h"
#include "common/slice_tree.h"
#include "kernels/gpu/device_matrix.h"
#include "kernels/gpu/tensor_core.h"
#include "kernels/gpu/testing/emulated_gpu.h"
#include "kernels/packed_matrix.h"

// Matrices of tests, and what a product with one must be: the numeric contract (docs/architecture.md,
// "Numbers") once more, as plainly as it can be said, and from the spec alone.

namespace bellwether::gpu {

struct RandomMatrix {
  RandomMatrix(const kernels::MatrixSpec& matrix_spec, uint64_t seed)
      : spec(matrix_spec), packed(kernels::PackedMatrix::Create(matrix_spec).value()) {
    TestRandom random(seed);
    IsQuantized(spec.format) ? FillQuantized(random) : FillFloats(random);
  }

  bool quantized() const { return IsQuantized(spec.format); }
  int64_t group_of(int64_t col) const {
    return (spec.first_col + col) / spec.group - spec.first_col / spec.group;
  }
  // The first column after `col` that has another scale.
  int64_t group_end(int64_t col) const {
    return ((spec.first_col + col) / spec.group + 1) * spec.group - spec.first_col;
  }

  kernels::MatrixSpec spec;
  kernels::PackedMatrix packed;
  std::vector<float> values;           // [rows][cols] of float formats, as rounded
  std::vector<int8_t> q;               // [rows][cols]
  std::vector<float> scales, offsets;  // [rows][groups]
  int64_t groups = 0;

 private:
  void FillFloats(TestRandom& random) {
    values.resize(spec.rows * spec.cols);
    for (int64_t row = 0; row < spec.rows; ++row) {
      for (int64_t col = 0; col < spec.cols; ++col) values[row * spec.cols + col] = random.Wide();
      const absl::Span<float> span(values.data() + row * spec.cols, spec.cols);
      packed.SetRow(row, absl::Span<const float>(span));
      packed.GetRow(row, span);
    }
  }
  void FillQuantized(TestRandom& random) {
    groups = spec.cols == 0 ? 0 : group_of(spec.cols - 1) + 1;
    const int count = spec.format == WeightFormat::kInt8 ? 256 : 16, lowest = packed.lowest_q();
    for (int64_t row = 0; row < spec.rows; ++row) {
      for (int64_t col = 0; col < spec.cols; ++col)
        q.push_back(static_cast<int8_t>(lowest + random.Below(count)));
      for (int64_t g = 0; g < groups; ++g) {
        // Few bits: exact in fp16.
        scales.push_back(static_cast<float>(1 + random.Below(200)) * 0x1p-10f);
        if (spec.has_offset) offsets.push_back(static_cast<float>(random.Below(400) - 200) * 0x1p-6f);
      }
      packed.SetRow(row, kernels::QuantizedSpan{q.data() + row * spec.cols, scales.data() + row * groups,
                                                spec.has_offset ? offsets.data() + row * groups : nullptr});
    }
  }
};

// One output of one row.
class ReferenceProduct {
 public:
  ReferenceProduct(const RandomMatrix& matrix, int64_t output, const float* x,
                   const TensorCoreClass& numerics = kHopperTensorCore)
      : matrix_(matrix), spec_(matrix.spec), output_(output), x_(x), numerics_(numerics) {}

  // The sum of each root of the reduction tree that the matrix yields.
  std::vector<float> Roots() const {
    if (spec_.slices_total == 1) return {Columns(0, spec_.cols, 256)};
    std::vector<float> roots;
    for (const SliceRange& root : SubtreeRoots(spec_.slices, spec_.slices_total)) roots.push_back(Node(root));
    return roots;
  }

 private:
  float Node(SliceRange node) const {
    if (node.size() == 1) {
      const int64_t* bound = spec_.slice_bounds.data() + node.begin - spec_.slices.begin;
      return Columns(bound[0], bound[1], 1024);
    }
    const int middle = SliceTreeMiddle(node);
    return Node({node.begin, middle}) + Node({middle, node.end});
  }
  float Columns(int64_t begin, int64_t end, int64_t most) const {
    float sum = Segment(begin, std::min(begin + most, end));
    for (int64_t at = begin + most; at < end; at += most) sum += Segment(at, std::min(at + most, end));
    return sum;
  }
  float Segment(int64_t begin, int64_t end) const {
    if (spec_.format == WeightFormat::kF32) return LimbDot<3>(begin, end);
    if (spec_.format == WeightFormat::kF16) return LimbDot<2>(begin, end);
    if (spec_.format == WeightFormat::kBF16) return Dot(begin, end);
    float sum = 0;
    while (begin < end) {
      const int64_t set_end = std::min(end, matrix_.group_end(begin));
      const int64_t group = output_ * matrix_.groups + matrix_.group_of(begin);
      sum = std::fma(matrix_.scales[group], Dot(begin, set_end), sum);
      if (spec_.has_offset) {
        float x_sum = 0;
        for (int64_t col = begin; col < set_end; ++col) x_sum += F32FromBF16(BF16FromF32(x_[col]));
        sum = std::fma(matrix_.offsets[group], x_sum, sum);
      }
      begin = set_end;
    }
    return sum;
  }
  // By tensor core steps, from 0.
  float Dot(int64_t begin, int64_t end) const {
    float sum = 0;
    for (int64_t step = begin; step < end; step += 16) {
      uint16_t a[16] = {}, b[16] = {};
      for (int64_t i = 0; i < std::min<int64_t>(16, end - step); ++i) {
        const int64_t at = output_ * spec_.cols + step + i;
        a[i] = BF16FromF32(matrix_.quantized() ? matrix_.q[at] : matrix_.values[at]);
        b[i] = BF16FromF32(x_[step + i]);
      }
      sum = TensorCoreDot(numerics_, a, b, sum);
    }
    return sum;
  }

  // The same of values that are sums of limbs: products of the first ones in a sum of their own.
  template <int kLimbs>
  float LimbDot(int64_t begin, int64_t end) const {
    float first = 0, rest = 0;
    for (int64_t step = begin; step < end; step += 16) {
      uint16_t a[kLimbs][16] = {}, b[kLimbs][16] = {};
      for (int64_t i = 0; i < std::min<int64_t>(16, end - step); ++i) {
        float weight = matrix_.values[output_ * spec_.cols + step + i], x = x_[step + i];
        for (int limb = 0; limb < kLimbs; ++limb) {
          weight -= F32FromBF16(a[limb][i] = BF16FromF32(weight));
          x -= F32FromBF16(b[limb][i] = BF16FromF32(x));
        }
      }
      first = TensorCoreDot(numerics_, a[0], b[0], first);
      for (int both = 1; both < kLimbs; ++both) {
        for (int limb = 0; limb <= both; ++limb)
          rest = TensorCoreDot(numerics_, a[limb], b[both - limb], rest);
      }
    }
    return first + rest;
  }

  const RandomMatrix& matrix_;
  const kernels::MatrixSpec& spec_;
  const int64_t output_;
  const float* const x_;
  const TensorCoreClass numerics_;
};

// A matrix in a GPU's form, on the host.
struct DeviceBytes {
  DeviceBytes(const kernels::PackedMatrix& matrix, const DeviceForm& form)
      : values(form.value_bytes()),
        scales(form.scale_bytes()),
        offsets(form.has_offset ? form.scale_bytes() : 0) {
    for (int64_t tile = 0; tile < form.tiles; ++tile) {
      PackTile(matrix, form, tile,
               {.values = values.data(), .scales = scales.data(), .offsets = offsets.data(), .tile = tile});
    }
  }
  std::vector<char> values, scales, offsets;
};

// And in its memory.
struct DeviceWeights {
  DeviceWeights(EmulatedGpu& gpu, const RandomMatrix& matrix) : form(DeviceFormOf(matrix.spec).value()) {
    const DeviceBytes bytes(matrix.packed, form);
    view.values = gpu.Put(bytes.values);
    // Offsets lie behind the scales: kernels count on it.
    std::vector<char> scales = bytes.scales;
    scales.insert(scales.end(), bytes.offsets.begin(), bytes.offsets.end());
    char* const factors = gpu.Put(scales);
    view.scales = factors;
    view.offsets = form.has_offset ? factors + bytes.scales.size() : nullptr;
    view.rows = static_cast<int32_t>(form.rows);
    view.tiles = form.tiles;
    view.half_scales = form.half_scales;
    steps = gpu.Put(form.steps);
    set_columns = gpu.Put(form.set_columns);
    for (int i = 0; i < 2; ++i) parts[i] = gpu.Put(form.parts[i].parts);
    FillTable(gpu);
  }

  DeviceForm form;
  WeightView view;
  const ColumnStep* steps = nullptr;
  const ColumnStep* set_columns = nullptr;
  const Part* parts[2] = {};

 private:
  void FillTable(EmulatedGpu& gpu) {
    WeightTable& table = view.table;
    table.segments = gpu.Put(form.segments);
    table.roots = gpu.Put(form.roots);
    table.segment_count = static_cast<int32_t>(form.segments.size());
    table.root_count = static_cast<int32_t>(form.roots.size());
    table.units = form.units;
    table.sets = form.sets;
    table.set_steps = form.set_steps;
    for (int i = 0; i <= WeightTable::kInline; ++i)
      table.unit_bounds[i] = i < table.segment_count ? form.segments[i].unit_begin : form.units;
    if (table.root_count == 1) table.order = form.roots[0].order;
  }
};

}  // namespace bellwether::gpu
