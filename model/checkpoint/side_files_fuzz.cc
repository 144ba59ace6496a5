#include <cstddef>
#include <cstdint>
#include <string>

#include "model/checkpoint/encrypted_file.h"
#include "model/checkpoint/lora_config.h"
#include "model/checkpoint/meta_params.h"
#include "model/checkpoint/read_options.h"

// The small files and names beside weights: params.json, adapter_config.json, --lora, NAME.HASH.enc.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (const auto params = bellwether::ParseMetaParams(text); params.ok())
    (void)bellwether::Validate(bellwether::CompleteMetaConfig(*params, 32000, size % 2 == 0));
  if (const auto config = bellwether::ParseLoraConfig(text); config.ok())
    (void)bellwether::LoraScale(*config, "model.layers.0.self_attn.q_proj");
  (void)bellwether::ParseLora(text);
  (void)bellwether::ParseEncryptedName(text);
  return 0;
}
