#include "worker/link/link.h"

#include <string_view>

#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {

std::string KindName(MessageKind kind) {
  switch (kind) {
    case MessageKind::kResidual:
      return "residual rows";
    case MessageKind::kReduceRoots:
      return "roots to reduce";
    case MessageKind::kReduceResult:
      return "reduced sums";
    case MessageKind::kEmbeddingRows:
      return "embedding rows";
    case MessageKind::kLogits:
      return "logits";
    case MessageKind::kNcclVersions:
      return "versions of NCCL";
    case MessageKind::kNcclId:
      return "the id of NCCL's communicator";
  }
  return absl::StrCat("kind ", static_cast<int>(kind));  // from another build, or garbage
}

}  // namespace

std::string Describe(const MessageTag& tag) {
  std::string text = absl::StrCat(KindName(tag.kind), " of stage ", tag.stage, " rank ", tag.rank,
                                  " in epoch ", tag.epoch.value, " step ", tag.step.value);
  if (tag.layer >= 0) absl::StrAppend(&text, " layer ", tag.layer);
  absl::StrAppend(&text, " (", tag.rows, " x ", tag.cols, ")");
  return text;
}

}  // namespace bellwether
