#include "model/checkpoint/input_order.h"

#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace bellwether {
namespace {

using Tensors = absl::flat_hash_map<TensorKey, StoredTensor>;
using Order = std::shared_ptr<const std::vector<int32_t>>;

// Null if there is none, or its groups follow each other.
const QuantizedLinear* MixedLinear(const Tensors& tensors, const TensorKey& key) {
  const auto found = tensors.find(key);
  if (found == tensors.end() || found->second.linear == nullptr) return nullptr;
  return found->second.linear->group_index.empty() ? nullptr : found->second.linear.get();
}

void SetOrder(const Order& order, StoredTensor& tensor) {
  auto linear = std::make_shared<QuantizedLinear>(*tensor.linear);
  linear->input_order = order;
  tensor.info.format = FormatOf(*linear);
  tensor.linear = std::move(linear);
}

void SettleDown(int32_t layer, Tensors& tensors) {
  const QuantizedLinear* down = MixedLinear(tensors, {TensorRole::kDown, layer});
  if (down == nullptr) return;
  const auto order = std::make_shared<const std::vector<int32_t>>(OrderByGroup(*down));
  SetOrder(order, tensors.at({TensorRole::kDown, layer}));
  for (const TensorRole role : {TensorRole::kGate, TensorRole::kUp}) {
    for (const bool bias : {false, true}) {
      const auto found = tensors.find({role, layer, bias});
      if (found == tensors.end()) continue;
      found->second.rows = {.order = order};
      found->second.vector_mapped = bias;
    }
  }
}

// Matrices with the same input take the order of the first one whose groups are mixed.
absl::Status SettleShared(std::initializer_list<TensorRole> roles, int32_t layer, Tensors& tensors) {
  const QuantizedLinear* first = nullptr;
  for (const TensorRole role : roles) {
    if (first == nullptr) first = MixedLinear(tensors, {role, layer});
  }
  if (first == nullptr) return absl::OkStatus();
  const std::string first_source = first->source;
  const auto order = std::make_shared<const std::vector<int32_t>>(OrderByGroup(*first));
  for (const TensorRole role : roles) {
    const auto found = tensors.find({role, layer});
    if (found == tensors.end()) continue;
    StoredTensor& tensor = found->second;
    const bool one_group = tensor.linear != nullptr && tensor.linear->group >= tensor.linear->inputs;
    const QuantizedLinear* mixed = MixedLinear(tensors, {role, layer});
    if (!one_group && (mixed == nullptr || OrderByGroup(*mixed) != *order)) {
      return absl::UnimplementedError(
          absl::StrCat(tensor.info.source, ": its groups (desc_act) are of other ", "inputs than those of ",
                       first_source, ", which has the same input"));
    }
    SetOrder(order, tensor);
    tensor.info.format.reordered = true;
    tensor.info.input_order = order;
  }
  return absl::OkStatus();
}

}  // namespace

void UndoInputOrders(Tensors& tensors) {
  for (auto& [key, tensor] : tensors) {
    if (tensor.rows.order != nullptr) {
      tensor.rows = {};
      tensor.vector_mapped = false;
    }
    if (tensor.linear == nullptr || tensor.linear->input_order == nullptr) continue;
    SetOrder(nullptr, tensor);
    tensor.info.input_order = nullptr;
  }
}

absl::Status SettleInputOrders(const ModelConfig& config, Tensors& tensors) {
  if (const QuantizedLinear* head = MixedLinear(tensors, {TensorRole::kHead}); head != nullptr) {
    return absl::UnimplementedError(
        absl::StrCat(head->source, ": a head quantised in the order of activations (desc_act)"));
  }
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    SettleDown(layer, tensors);
    BW_RETURN_IF_ERROR(
        SettleShared({TensorRole::kQuery, TensorRole::kKey, TensorRole::kValue}, layer, tensors));
    BW_RETURN_IF_ERROR(SettleShared({TensorRole::kGate, TensorRole::kUp}, layer, tensors));
  }
  return absl::OkStatus();
}

}  // namespace bellwether
