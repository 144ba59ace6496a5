#include "model/checkpoint/torch_pickle.h"

#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/checkpoint/file_tensor.h"
#include "model/checkpoint/torch_globals.h"

namespace bellwether {
namespace {

// A value by its number in the machine's list.
using Ref = uint32_t;

enum class Kind : uint8_t {
  kNone,
  kBool,
  kInteger,
  kOther,  // a number with a point, a set: of no interest
  kText,
  kTuple,
  kList,
  kDict,
  kGlobal,
  kStorage,
  kTensor,
};

struct Value {
  Kind kind = Kind::kNone;
  int64_t integer = 0;    // kBool, kInteger; kGlobal: index of kTorchGlobals; kTensor: index of tensors_
  std::string_view text;  // kText; kStorage: its key
  std::vector<Ref> items = {};  // of containers; a dict has key, value, key, value ...
};

enum Opcode : uint8_t {
  kMark = '(',
  kStop = '.',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kLong1 = 0x8a,
  kNoneValue = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kBinUnicode = 'X',
  kShortBinString = 'U',
  kBinFloat = 'G',
  kEmptyList = ']',
  kAppend = 'a',
  kAppends = 'e',
  kBuild = 'b',
  kGlobalName = 'c',
  kEmptyDict = '}',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kSetItems = 'u',
  kTuple = 't',
  kEmptyTuple = ')',
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kProtocol = 0x80,
};

class Machine {
 public:
  explicit Machine(absl::Span<const std::byte> pickle) : pickle_(pickle) {}

  // The value that the pickle leaves behind.
  absl::StatusOr<Ref> Run();
  size_t bytes_read() const { return next_; }
  const std::vector<PickledStorage>& storages() const { return storages_; }
  const Value& value(Ref ref) const { return values_[ref]; }
  const PickledTensor& tensor(const Value& value) const { return tensors_[value.integer]; }

 private:
  absl::Status Fail(const std::string& what) const {
    return absl::InvalidArgumentError(absl::StrCat(what, " at byte ", at_, " of the pickle"));
  }
  absl::Status Step(uint8_t opcode);
  absl::Status StepContainer(uint8_t opcode);

  template <typename T>
  absl::Status Take(T& value) {
    if (pickle_.size() - next_ < sizeof(T)) return Fail("cut short");
    std::memcpy(&value, pickle_.data() + next_, sizeof(T));
    next_ += sizeof(T);
    return absl::OkStatus();
  }
  absl::Status TakeText(uint64_t length, std::string_view& text);
  absl::Status TakeLine(std::string_view& line);

  absl::Status Push(Value value);
  absl::StatusOr<Ref> Pop();
  absl::StatusOr<std::vector<Ref>> PopToMark();
  absl::StatusOr<Value*> Top(Kind kind);

  absl::Status PushInteger(int64_t value) { return Push({.kind = Kind::kInteger, .integer = value}); }
  absl::Status PushText(uint64_t length);
  absl::Status PushLong();
  absl::Status PushTuple(size_t count);
  absl::Status PushGlobal();
  absl::Status PushStorage();
  absl::Status Put(uint32_t key);
  absl::Status Get(uint32_t key);
  absl::Status Extend(Kind kind, std::vector<Ref> items);
  absl::Status Reduce();
  absl::Status CheckMetadata(Ref ref) const;
  absl::Status RebuildTensor(const Value& arguments);
  absl::StatusOr<std::vector<int64_t>> Integers(Ref ref) const;

  const absl::Span<const std::byte> pickle_;
  size_t at_ = 0;             // of the opcode that runs
  size_t next_ = 0;           // what is read next
  std::deque<Value> values_;  // whose references last, and which takes no second copy to grow
  std::vector<PickledTensor> tensors_;
  std::vector<PickledStorage> storages_;
  absl::flat_hash_set<std::string_view> storage_keys_;
  std::vector<Ref> stack_;
  std::vector<size_t> marks_;  // heights of the stack
  absl::flat_hash_map<uint32_t, Ref> memo_;
};

absl::Status Machine::TakeText(uint64_t length, std::string_view& text) {
  if (length > pickle_.size() - next_) return Fail("cut short");
  text = {reinterpret_cast<const char*>(pickle_.data()) + next_, length};
  next_ += length;
  return absl::OkStatus();
}

absl::Status Machine::TakeLine(std::string_view& line) {
  const std::string_view rest(reinterpret_cast<const char*>(pickle_.data()) + next_, pickle_.size() - next_);
  const size_t length = rest.find('\n');
  if (length == std::string_view::npos) return Fail("cut short");
  line = rest.substr(0, length);
  next_ += length + 1;
  return absl::OkStatus();
}

absl::Status Machine::Push(Value value) {
  if (values_.size() == kPickleValuesMax)
    return Fail(absl::StrCat("more than ", kPickleValuesMax, " values"));
  values_.push_back(std::move(value));
  stack_.push_back(static_cast<Ref>(values_.size() - 1));
  return absl::OkStatus();
}

absl::StatusOr<Ref> Machine::Pop() {
  if (stack_.empty() || (!marks_.empty() && marks_.back() == stack_.size())) return Fail("nothing to take");
  const Ref top = stack_.back();
  stack_.pop_back();
  return top;
}

absl::StatusOr<std::vector<Ref>> Machine::PopToMark() {
  if (marks_.empty()) return Fail("no mark");
  const size_t height = marks_.back();
  marks_.pop_back();
  std::vector<Ref> items(stack_.begin() + static_cast<ptrdiff_t>(height), stack_.end());
  stack_.resize(height);
  return items;
}

absl::StatusOr<Value*> Machine::Top(Kind kind) {
  if (stack_.empty() || (!marks_.empty() && marks_.back() == stack_.size())) return Fail("nothing to fill");
  Value& top = values_[stack_.back()];
  if (top.kind != kind) return Fail("a value of the wrong kind");
  return &top;
}

absl::Status Machine::PushText(uint64_t length) {
  Value text{.kind = Kind::kText};
  BW_RETURN_IF_ERROR(TakeText(length, text.text));
  return Push(std::move(text));
}

// Little-endian two's complement of a length of its own.
absl::Status Machine::PushLong() {
  uint8_t length = 0;
  BW_RETURN_IF_ERROR(Take(length));
  std::string_view bytes;
  BW_RETURN_IF_ERROR(TakeText(length, bytes));
  if (length > sizeof(int64_t)) return Fail("an integer beyond 64 bits");
  uint64_t bits = length > 0 && (static_cast<uint8_t>(bytes.back()) & 0x80) != 0 ? ~uint64_t{0} : 0;
  std::memcpy(&bits, bytes.data(), length);
  return PushInteger(static_cast<int64_t>(bits));
}

absl::Status Machine::PushTuple(size_t count) {
  Value tuple{.kind = Kind::kTuple, .items = std::vector<Ref>(count)};
  for (size_t i = count; i > 0; --i) {
    BW_ASSIGN_OR_RETURN(tuple.items[i - 1], Pop());
  }
  return Push(std::move(tuple));
}

absl::Status Machine::PushGlobal() {
  std::string_view module, name;
  BW_RETURN_IF_ERROR(TakeLine(module));
  BW_RETURN_IF_ERROR(TakeLine(name));
  for (size_t i = 0; i < std::size(kTorchGlobals); ++i) {
    if (kTorchGlobals[i].module != module || kTorchGlobals[i].name != name) continue;
    return Push({.kind = Kind::kGlobal, .integer = static_cast<int64_t>(i)});
  }
  return absl::UnimplementedError(
      absl::StrCat("the pickle asks for ", Quoted(absl::StrCat(std::string(module), ".", std::string(name))),
                   ", which no state dict needs and nothing here runs; save the state dict alone"));
}

// ("storage", type, key, location, elements); where the storage was, on which device, is of no interest.
// Before 1.6 there was a sixth: None, or of a part of a storage (its key, first element, elements).
absl::Status Machine::PushStorage() {
  BW_ASSIGN_OR_RETURN(const Ref id, Pop());
  const Value& tuple = values_[id];
  if (tuple.kind != Kind::kTuple || tuple.items.size() < 5 || tuple.items.size() > 6)
    return Fail("an unknown persistent id");
  const Value &tag = values_[tuple.items[0]], &type = values_[tuple.items[1]], &key = values_[tuple.items[2]],
              &elements = values_[tuple.items[4]];
  const bool is_type =
      type.kind == Kind::kGlobal && kTorchGlobals[type.integer].meaning == TorchMeaning::kStorageType;
  if (tag.text != "storage" || !is_type || key.kind != Kind::kText || elements.kind != Kind::kInteger ||
      elements.integer < 0) {
    return Fail("an unknown persistent id");
  }
  Value storage{.kind = Kind::kStorage,
                .integer = elements.integer,
                .text = key.text,
                .items = {tuple.items[1]}};  // its type
  if (tuple.items.size() == 6) {
    const Value& part = values_[tuple.items[5]];
    if (part.kind == Kind::kTuple && part.items.size() == 3) {
      storage.items.push_back(part.items[1]);  // its first element
    } else if (part.kind != Kind::kNone) {
      return Fail("an unknown persistent id");
    }
  }
  if (storage_keys_.insert(key.text).second)
    storages_.push_back({key.text, kTorchGlobals[type.integer].dtype, elements.integer});
  return Push(std::move(storage));
}

absl::Status Machine::Put(uint32_t key) {
  if (stack_.empty()) return Fail("nothing to remember");
  if (memo_.size() == kPickleValuesMax) return Fail("too many values to remember");
  memo_[key] = stack_.back();
  return absl::OkStatus();
}

absl::Status Machine::Get(uint32_t key) {
  const auto found = memo_.find(key);
  if (found == memo_.end()) return Fail("a value that was never remembered");
  if (stack_.size() == kPickleValuesMax) return Fail("too high a stack");
  stack_.push_back(found->second);
  return absl::OkStatus();
}

absl::Status Machine::Extend(Kind kind, std::vector<Ref> items) {
  if (kind == Kind::kDict && items.size() % 2 != 0) return Fail("a key without a value");
  BW_ASSIGN_OR_RETURN(Value * container, Top(kind));
  container->items.insert(container->items.end(), items.begin(), items.end());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int64_t>> Machine::Integers(Ref ref) const {
  const Value& tuple = values_[ref];
  if (tuple.kind != Kind::kTuple || tuple.items.size() > kFileTensorRankMax) {
    return Fail("a shape or strides that are none");
  }
  std::vector<int64_t> result;
  for (const Ref item : tuple.items) {
    if (values_[item].kind != Kind::kInteger || values_[item].integer < 0) {
      return Fail("a shape or strides that are none");
    }
    result.push_back(values_[item].integer);
  }
  return result;
}

// What torch says of a tensor whose values are not those of its storage: {"neg": True}, {"conj": True}.
absl::Status Machine::CheckMetadata(Ref ref) const {
  const Value& metadata = values_[ref];
  if (metadata.kind == Kind::kNone) return absl::OkStatus();
  if (metadata.kind != Kind::kDict) return Fail("a tensor of unknown form");
  for (size_t i = 0; i + 1 < metadata.items.size(); i += 2) {
    const Value &key = values_[metadata.items[i]], &value = values_[metadata.items[i + 1]];
    const bool off = value.kind == Kind::kNone || (value.kind == Kind::kBool && value.integer == 0);
    if (off) continue;
    return absl::UnimplementedError(
        absl::StrCat("a tensor that is marked ", Quoted(key.text),
                     ", so that its values are not those of its storage, at byte ", at_,
                     " of the pickle: save it after resolve_neg() and resolve_conj()"));
  }
  return absl::OkStatus();
}

// (storage, first element, shape, strides, requires_grad, hooks, perhaps metadata)
absl::Status Machine::RebuildTensor(const Value& arguments) {
  const std::vector<Ref> items = arguments.items;
  if (items.size() < 6 || items.size() > 7) return Fail("a tensor of unknown form");
  const Value &storage = values_[items[0]], &first = values_[items[1]];
  if (storage.kind != Kind::kStorage || first.kind != Kind::kInteger || first.integer < 0) {
    return Fail("a tensor of unknown form");
  }
  PickledTensor tensor{.storage = storage.text,
                       .dtype = kTorchGlobals[values_[storage.items[0]].integer].dtype,
                       .storage_elements = storage.integer,
                       .first = first.integer};
  if (storage.items.size() == 2) {
    const Value& part = values_[storage.items[1]];
    if (part.kind != Kind::kInteger || part.integer < 0 ||
        __builtin_add_overflow(tensor.first, part.integer, &tensor.first)) {
      return Fail("a part of a storage that is none");
    }
  }
  if (items.size() == 7) BW_RETURN_IF_ERROR(CheckMetadata(items[6]));
  BW_ASSIGN_OR_RETURN(tensor.shape, Integers(items[2]));
  BW_ASSIGN_OR_RETURN(tensor.strides, Integers(items[3]));
  if (tensor.shape.size() != tensor.strides.size())
    return Fail("a tensor with as many strides as dimensions");
  tensors_.push_back(std::move(tensor));
  return Push({.kind = Kind::kTensor, .integer = static_cast<int64_t>(tensors_.size()) - 1});
}

absl::Status Machine::Reduce() {
  BW_ASSIGN_OR_RETURN(const Ref arguments_ref, Pop());
  BW_ASSIGN_OR_RETURN(const Ref function_ref, Pop());
  const Value &arguments = values_[arguments_ref], &function = values_[function_ref];
  if (function.kind != Kind::kGlobal || arguments.kind != Kind::kTuple) return Fail("a call of no function");
  const auto give_first = [&](Kind kind) {
    if (arguments.items.empty() || values_[arguments.items[0]].kind != kind)
      return Fail("a call of unknown form");
    stack_.push_back(arguments.items[0]);
    return absl::OkStatus();
  };
  switch (kTorchGlobals[function.integer].meaning) {
    case TorchMeaning::kOrderedDict:
      if (!arguments.items.empty()) return Fail("an OrderedDict of unknown form");
      return Push({.kind = Kind::kDict});
    case TorchMeaning::kRebuildTensor:
      return RebuildTensor(arguments);
    case TorchMeaning::kRebuildParameter:
      return give_first(Kind::kTensor);
    case TorchMeaning::kSize:
      return give_first(Kind::kTuple);
    case TorchMeaning::kSet:
      if (arguments.items.size() != 1 || values_[arguments.items[0]].kind != Kind::kList)
        return Fail("a set of unknown form");
      return Push({.kind = Kind::kOther});
    case TorchMeaning::kStorageType:
    case TorchMeaning::kNothing:
      break;
  }
  return Fail("a call of no function");
}

absl::Status Machine::StepContainer(uint8_t opcode) {
  switch (opcode) {
    case kMark:
      if (marks_.size() == kPickleValuesMax) return Fail("too many marks");
      marks_.push_back(stack_.size());
      return absl::OkStatus();
    case kEmptyDict:
      return Push({.kind = Kind::kDict});
    case kEmptyList:
      return Push({.kind = Kind::kList});
    case kEmptyTuple:
      return PushTuple(0);
    case kTuple1:
      return PushTuple(1);
    case kTuple2:
      return PushTuple(2);
    case kTuple3:
      return PushTuple(3);
    case kTuple: {
      BW_ASSIGN_OR_RETURN(std::vector<Ref> items, PopToMark());
      return Push({.kind = Kind::kTuple, .items = std::move(items)});
    }
    case kAppend: {
      BW_ASSIGN_OR_RETURN(const Ref item, Pop());
      return Extend(Kind::kList, {item});
    }
    case kAppends: {
      BW_ASSIGN_OR_RETURN(std::vector<Ref> items, PopToMark());
      return Extend(Kind::kList, std::move(items));
    }
    case kSetItem: {
      BW_ASSIGN_OR_RETURN(const Ref value, Pop());
      BW_ASSIGN_OR_RETURN(const Ref key, Pop());
      return Extend(Kind::kDict, {key, value});
    }
    case kSetItems: {
      BW_ASSIGN_OR_RETURN(std::vector<Ref> items, PopToMark());
      return Extend(Kind::kDict, std::move(items));
    }
    case kBuild: {  // attributes of an OrderedDict (its _metadata), which nobody needs
      BW_RETURN_IF_ERROR(Pop().status());
      return Top(Kind::kDict).status();
    }
    default:
      return absl::UnimplementedError(
          absl::StrFormat("opcode 0x%02x at byte %d of the pickle, which no state dict needs", opcode, at_));
  }
}

absl::Status Machine::Step(uint8_t opcode) {
  const auto with = [&](auto operand, auto use) -> absl::Status {
    BW_RETURN_IF_ERROR(Take(operand));
    return use(operand);
  };
  const auto integer = [&](auto value) { return PushInteger(value); };
  const auto text = [&](auto length) { return PushText(length); };
  const auto put = [&](auto key) { return Put(key); };
  const auto get = [&](auto key) { return Get(key); };
  switch (opcode) {
    case kProtocol:
      return with(uint8_t{}, [&](uint8_t version) {
        return version == 2 ? absl::OkStatus() : Fail(absl::StrCat("protocol ", int{version}, ", not 2,"));
      });
    case kNoneValue:
      return Push({.kind = Kind::kNone});
    case kNewTrue:
    case kNewFalse:
      return Push({.kind = Kind::kBool, .integer = opcode == kNewTrue});
    case kBinInt:
      return with(int32_t{}, integer);
    case kBinInt1:
      return with(uint8_t{}, integer);
    case kBinInt2:
      return with(uint16_t{}, integer);
    case kLong1:
      return PushLong();
    case kBinFloat:
      return with(uint64_t{}, [&](uint64_t) { return Push({.kind = Kind::kOther}); });
    case kBinUnicode:
      return with(uint32_t{}, text);
    case kShortBinString:
      return with(uint8_t{}, text);
    case kBinPut:
      return with(uint8_t{}, put);
    case kLongBinPut:
      return with(uint32_t{}, put);
    case kBinGet:
      return with(uint8_t{}, get);
    case kLongBinGet:
      return with(uint32_t{}, get);
    case kGlobalName:
      return PushGlobal();
    case kBinPersId:
      return PushStorage();
    case kReduce:
      return Reduce();
    default:
      return StepContainer(opcode);
  }
}

absl::StatusOr<Ref> Machine::Run() {
  uint8_t opcode = 0;
  for (size_t steps = 0; opcode != kStop; ++steps) {
    if (steps == kPickleStepsMax) return Fail(absl::StrCat("more than ", kPickleStepsMax, " steps"));
    at_ = next_;
    BW_RETURN_IF_ERROR(Take(opcode));
    if (opcode != kStop) BW_RETURN_IF_ERROR(Step(opcode));
  }
  if (stack_.size() != 1 || !marks_.empty()) return Fail("more or less than one value");
  return stack_.front();
}

// Looks for the state dict: the dict whose values are tensors, perhaps within those of a trainer.
class StateDictFinder {
 public:
  explicit StateDictFinder(const Machine& machine) : machine_(machine) {}

  // Of a wrapper the inner dict counts: tensors beside it are a trainer's own, such as random states.
  absl::StatusOr<std::vector<NamedPickledTensor>> Find(Ref root) const {
    for (size_t depth = 0; depth < kPickleDepthMax; ++depth) {
      const std::optional<Ref> inner = Wrapped(machine_.value(root));
      if (!inner.has_value()) break;
      root = *inner;
    }
    if (machine_.value(root).items.size() / 2 > kFileTensorsMax)
      return absl::InvalidArgumentError(absl::StrCat("more than ", kFileTensorsMax, " tensors"));
    std::vector<NamedPickledTensor> tensors = TensorsOf(machine_.value(root));
    if (!tensors.empty()) return tensors;
    return absl::InvalidArgumentError("the pickle holds no state dict: no tensors under names");
  }

 private:
  std::vector<NamedPickledTensor> TensorsOf(const Value& dict) const {
    std::vector<NamedPickledTensor> tensors;
    if (dict.kind != Kind::kDict) return tensors;
    for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
      const Value &key = machine_.value(dict.items[i]), &value = machine_.value(dict.items[i + 1]);
      if (key.kind != Kind::kText || value.kind != Kind::kTensor) continue;
      tensors.push_back({key.text, machine_.tensor(value)});
    }
    return tensors;
  }
  std::optional<Ref> Wrapped(const Value& dict) const {
    if (dict.kind != Kind::kDict) return std::nullopt;
    for (const std::string_view name : {"state_dict", "model", "module"}) {
      for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
        const Value &key = machine_.value(dict.items[i]), &value = machine_.value(dict.items[i + 1]);
        if (key.kind == Kind::kText && key.text == name && value.kind == Kind::kDict)
          return dict.items[i + 1];
      }
    }
    return std::nullopt;
  }

  const Machine& machine_;
};

}  // namespace

absl::StatusOr<PickledState> ReadTorchPickle(absl::Span<const std::byte> pickle) {
  Machine machine(pickle);
  BW_ASSIGN_OR_RETURN(const Ref root, machine.Run());
  PickledState state{.storages = machine.storages(), .bytes = machine.bytes_read()};
  BW_ASSIGN_OR_RETURN(state.tensors, StateDictFinder(machine).Find(root));
  return state;
}

absl::StatusOr<PickledLegacyHeader> ReadLegacyHeader(absl::Span<const std::byte> pickles) {
  Machine version(pickles);
  BW_ASSIGN_OR_RETURN(const Ref number, version.Run());
  Machine machine(pickles.subspan(version.bytes_read()));
  BW_ASSIGN_OR_RETURN(const Ref system, machine.Run());
  PickledLegacyHeader header{.bytes = version.bytes_read() + machine.bytes_read()};
  if (version.value(number).kind == Kind::kInteger) header.version = version.value(number).integer;
  const Value& dict = machine.value(system);
  if (dict.kind != Kind::kDict) return absl::InvalidArgumentError("no dict says which machine wrote it");
  for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    const Value &key = machine.value(dict.items[i]), &value = machine.value(dict.items[i + 1]);
    if (key.text == "little_endian" && value.kind == Kind::kBool) header.little_endian = value.integer != 0;
  }
  return header;
}

absl::StatusOr<PickledKeys> ReadPickledKeys(absl::Span<const std::byte> pickle) {
  Machine machine(pickle);
  BW_ASSIGN_OR_RETURN(const Ref root, machine.Run());
  const Value& list = machine.value(root);
  if (list.kind != Kind::kList) return absl::InvalidArgumentError("no list of storages");
  PickledKeys keys{.bytes = machine.bytes_read()};
  for (const Ref item : list.items) {
    if (machine.value(item).kind != Kind::kText)
      return absl::InvalidArgumentError("a key of a storage that is no text");
    keys.keys.push_back(machine.value(item).text);
  }
  return keys;
}

}  // namespace bellwether
