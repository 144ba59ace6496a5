#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/status.h"
#include "worker/device/cpu_device.h"

namespace bellwether {

// A CPU made as unlike one as the contract of device.h allows. Its pointers lead nowhere: whoever follows one
// on the host dies of it. Its operations wait until somebody reads or finishes: whoever changes an argument
// before that, or does not wait, gets other values. Its memory is full of NaN until it is written.
class FarDevice : public Device {
 public:
  // With `operations` >= 0 all that come after so many of a DeviceOps fail.
  explicit FarDevice(int threads, int64_t operations = -1) : cpu_(threads), operations_(operations) {}

  std::string Describe() const override { return "far"; }
  int64_t layer_rows_max() const override { return cpu_.layer_rows_max(); }
  absl::StatusOr<std::shared_ptr<WeightStore>> NewWeightStore(absl::Span<const kernels::MatrixSpec> matrices,
                                                              WeightHome home, bool with_image) override;
  std::string image_form() const override { return cpu_.image_form(); }
  absl::StatusOr<std::shared_ptr<std::byte>> NewImage(int64_t bytes) override { return cpu_.NewImage(bytes); }
  bool keeps_packed_images() const override { return true; }
  absl::StatusOr<std::unique_ptr<DeviceOps>> NewOps(const OpsOptions& options) override;

  // Beyond what a process is given, and no bits that a processor ignores.
  static constexpr uintptr_t kDistance = uintptr_t{1} << 50;
  template <typename T>
  static T* Near(T* far) {
    return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(far) - kDistance);
  }
  template <typename T>
  static T* Far(T* near) {
    return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(near) + kDistance);
  }

 private:
  CpuDevice cpu_;
  const int64_t operations_;
};

class FarWeightStore : public WeightStore {
 public:
  explicit FarWeightStore(std::shared_ptr<WeightStore> cpu) : cpu_(std::move(cpu)) {}
  absl::StatusOr<std::unique_ptr<DeviceMatrix>> Pack(const kernels::MatrixSpec& spec,
                                                     FillRows fill) override {
    return cpu_->Pack(spec, fill);
  }
  absl::StatusOr<DeviceVector> Keep(std::vector<float> values) override {
    BW_ASSIGN_OR_RETURN(DeviceVector vector, cpu_->Keep(std::move(values)));
    return DeviceVector{FarDevice::Far(vector.data), vector.size};
  }
  absl::Span<std::byte> image() override { return cpu_->image(); }
  absl::StatusOr<std::unique_ptr<DeviceMatrix>> KeepImage(kernels::MatrixSpec spec) override {
    return cpu_->KeepImage(std::move(spec));
  }
  void MoveTo(std::byte* image) override { cpu_->MoveTo(image); }
  void DropImage() override { cpu_->DropImage(); }

 private:
  const std::shared_ptr<WeightStore> cpu_;
};

class FarOps : public DeviceOps {
 public:
  FarOps(std::unique_ptr<DeviceOps> cpu, int64_t operations) : cpu_(std::move(cpu)), left_(operations) {}

  absl::StatusOr<float*> Allocate(int64_t floats) override {
    BW_ASSIGN_OR_RETURN(float* near, cpu_->Allocate(floats));
    std::fill_n(near, floats, std::nanf(""));
    return FarDevice::Far(near);
  }
  absl::StatusOr<float*> AllocateHost(int64_t floats) override { return cpu_->Allocate(floats); }
  int64_t kv_bytes() const override { return cpu_->kv_bytes(); }

  void Begin(const Batch& batch) override {
    auto copy = std::make_shared<OwnBatch>(batch);
    Later([this, copy] {
      batch_ = copy;
      cpu_->Begin(copy->batch);
    });
  }
  void Embed(const DeviceMatrix& embedding, TokenId first, MutableRows out) override {
    Later([=, this, &embedding] { cpu_->Embed(embedding, first, Near(out)); });
  }
  void Norm(ConstRows x, const NormWeights& weights, int64_t cols, double epsilon, MutableRows out) override {
    const NormWeights near = {Near(weights.weight), Near(weights.bias)};
    Later([=, this] { cpu_->Norm(Near(x), near, cols, epsilon, Near(out)); });
  }
  void Multiply(ConstRows x, absl::Span<const Product> products) override {
    std::vector<Product> near(products.begin(), products.end());
    for (Product& product : near) {
      product.bias = Near(product.bias);
      product.y = FarDevice::Near(product.y);
    }
    Later([this, x, near = std::move(near)] { cpu_->Multiply(Near(x), near); });
  }
  void RotateAndStore(int64_t layer, Range rows, const HeadNorms& norms, MutableRows query, MutableRows key,
                      ConstRows value) override {
    const HeadNorms near = {Near(norms.query), Near(norms.key)};
    Later([=, this] { cpu_->RotateAndStore(layer, rows, near, Near(query), Near(key), Near(value)); });
  }
  void Attend(int64_t layer, Range rows, ConstRows query, MutableRows out) override {
    Later([=, this] { cpu_->Attend(layer, rows, Near(query), Near(out)); });
  }
  void SiluMultiply(MutableRows gate, ConstRows up, int64_t cols) override {
    Later([=, this] { cpu_->SiluMultiply(Near(gate), Near(up), cols); });
  }
  void Gelu(MutableRows x, int64_t cols) override {
    Later([=, this] { cpu_->Gelu(Near(x), cols); });
  }
  void Add(ConstRows before, MutableRows sum, DeviceVector bias, MutableRows residual) override {
    Later([=, this] { cpu_->Add(Near(before), Near(sum), Near(bias), Near(residual)); });
  }
  void PickRows(ConstRows x, absl::Span<const int32_t> picks, int64_t cols, MutableRows out) override {
    std::vector<int32_t> copy(picks.begin(), picks.end());
    Later([=, this, copy = std::move(copy)] { cpu_->PickRows(Near(x), copy, cols, Near(out)); });
  }
  void PickColumns(ConstRows x, DeviceVector columns, MutableRows out) override {
    Later([=, this] { cpu_->PickColumns(Near(x), Near(columns), Near(out)); });
  }
  void SumRoots(absl::Span<const float* const> roots, int64_t count, float* out) override {
    std::vector<const float*> near;
    for (const float* root : roots) near.push_back(FarDevice::Near(root));
    Later([=, this, near = std::move(near)] { cpu_->SumRoots(near, count, FarDevice::Near(out)); });
  }

  absl::Status Read(const float* from, absl::Span<float> to) override {
    BW_RETURN_IF_ERROR(Finish());
    return cpu_->Read(FarDevice::Near(from), to);
  }
  absl::Status Write(absl::Span<const float> from, float* to) override {
    std::vector<float> copy(from.begin(), from.end());
    Later([this, to, copy = std::move(copy)] { (void)cpu_->Write(copy, FarDevice::Near(to)); });
    return absl::OkStatus();
  }
  absl::Status WriteLater(absl::Span<const float> from, float* to) override {
    Later([=, this] { (void)cpu_->Write(from, FarDevice::Near(to)); });
    return absl::OkStatus();
  }
  absl::Status Finish() override {
    for (; !later_.empty() && left_ != 0; later_.pop_front()) {
      later_.front()();
      left_ -= left_ > 0 ? 1 : 0;
    }
    return later_.empty() ? absl::OkStatus() : absl::InternalError("the far device is broken");
  }
  float* HostView(float*) override { return nullptr; }

 private:
  // With the sequences that its runs point to.
  struct OwnBatch {
    explicit OwnBatch(const Batch& from) : batch(from) {
      for (Batch::Run& run : batch.runs) run.sequence = &sequences.emplace_back(*run.sequence);
    }
    Batch batch;
    std::deque<SequenceState> sequences;
  };

  static ConstRows Near(ConstRows far) { return {FarDevice::Near(far.data), far.rows, far.stride}; }
  static MutableRows Near(MutableRows far) { return {FarDevice::Near(far.data), far.rows, far.stride}; }
  static DeviceVector Near(DeviceVector far) {
    return far.empty() ? far : DeviceVector{FarDevice::Near(far.data), far.size};
  }
  void Later(std::function<void()> operation) { later_.push_back(std::move(operation)); }

  const std::unique_ptr<DeviceOps> cpu_;
  std::deque<std::function<void()>> later_;
  int64_t left_;  // operations before all fail; negative: no end
  std::shared_ptr<const OwnBatch> batch_;
};

inline absl::StatusOr<std::shared_ptr<WeightStore>> FarDevice::NewWeightStore(
    absl::Span<const kernels::MatrixSpec> matrices, WeightHome home, bool with_image) {
  BW_ASSIGN_OR_RETURN(std::shared_ptr<WeightStore> cpu, cpu_.NewWeightStore(matrices, home, with_image));
  return std::make_shared<FarWeightStore>(std::move(cpu));
}

inline absl::StatusOr<std::unique_ptr<DeviceOps>> FarDevice::NewOps(const OpsOptions& options) {
  BW_ASSIGN_OR_RETURN(std::unique_ptr<DeviceOps> cpu, cpu_.NewOps(options));
  return std::make_unique<FarOps>(std::move(cpu), operations_);
}

}  // namespace bellwether
