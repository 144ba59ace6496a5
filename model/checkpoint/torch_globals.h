#pragma once

#include <cstdint>
#include <string_view>

namespace bellwether {

// What a global of the allow-list stands for.
enum class TorchMeaning : uint8_t {
  kOrderedDict,
  kRebuildTensor,
  kRebuildParameter,
  kSize,
  kSet,  // DeepSpeed's names of modules
  kStorageType,
  kNothing,  // a value of a trainer's settings
};

struct TorchGlobal {
  std::string_view module;
  std::string_view name;
  TorchMeaning meaning;
  std::string_view dtype = {};  // of storage types
};
inline constexpr TorchGlobal kTorchGlobals[] = {
    {"collections", "OrderedDict", TorchMeaning::kOrderedDict},
    {"torch._utils", "_rebuild_tensor_v2", TorchMeaning::kRebuildTensor},
    {"torch._utils", "_rebuild_parameter", TorchMeaning::kRebuildParameter},
    {"torch", "Size", TorchMeaning::kSize},
    {"__builtin__", "set", TorchMeaning::kSet},
    {"builtins", "set", TorchMeaning::kSet},
    {"torch", "float16", TorchMeaning::kNothing},
    {"torch", "bfloat16", TorchMeaning::kNothing},
    {"torch", "float32", TorchMeaning::kNothing},
    {"torch", "float64", TorchMeaning::kNothing},
    {"torch", "int8", TorchMeaning::kNothing},
    {"torch", "uint8", TorchMeaning::kNothing},
    {"torch", "int16", TorchMeaning::kNothing},
    {"torch", "int32", TorchMeaning::kNothing},
    {"torch", "int64", TorchMeaning::kNothing},
    {"torch", "bool", TorchMeaning::kNothing},
    {"torch", "HalfStorage", TorchMeaning::kStorageType, "F16"},
    {"torch", "BFloat16Storage", TorchMeaning::kStorageType, "BF16"},
    {"torch", "FloatStorage", TorchMeaning::kStorageType, "F32"},
    {"torch", "DoubleStorage", TorchMeaning::kStorageType, "F64"},
    {"torch", "LongStorage", TorchMeaning::kStorageType, "I64"},
    {"torch", "IntStorage", TorchMeaning::kStorageType, "I32"},
    {"torch", "ShortStorage", TorchMeaning::kStorageType, "I16"},
    {"torch", "CharStorage", TorchMeaning::kStorageType, "I8"},
    {"torch", "ByteStorage", TorchMeaning::kStorageType, "U8"},
    {"torch", "BoolStorage", TorchMeaning::kStorageType, "BOOL"},
};

}  // namespace bellwether
