#include "model/chat_template/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/chat_template/chat_template_hints.h"
#include "model/checkpoint/testing_files.h"
#include "model/model_names.h"

namespace bellwether {
namespace {

using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::string MustRender(const char* name, std::vector<ChatMessage> messages) {
  const ChatTemplate* chat_template = FindChatTemplate(name);
  if (chat_template == nullptr) return "no such template";
  const auto chat = RenderChat(*chat_template, messages);
  return chat.ok() ? chat->Text() : chat.status().ToString();
}

TEST(ChatTemplateTest, OneTurnOfEveryFamily) {
  const std::string alpaca_system =
      "Below is an instruction that describes a task. Write a response that appropriately completes the "
      "request.\n\n";
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"none", "X"},
      {"belle-7b", "Human: X\n\nAssistant:"},
      {"belle-7b-prose", "Human: X \n\nAssistant:"},
      {"belle-7b-multi-turn", "Human:X\n\nAssistant:"},
      {"belle-llama", "Human: X \n\nAssistant: "},
      {"belle-llama-ext-13b", "Human: X \n\nBelle: "},
      {"belle-llama-ext-13b-factory", "Human: X\n\nBelle: "},
      {"belle-llama-ext-7b", "X"},
      {"belle-open-datasets", "Human: X \n\nAssistant: "},
      {"belle-train-v1-eval", "Human: X\n\nAssistant: "},
      {"belle-train", "Human: \nX\n\nAssistant: \n"},
      {"belle-zero-inference", "Human: \nX\n\nAssistant:\n"},
      {"belle-llama2-13b", "Human: \nX\n\nAssistant:\n"},
      {"billa", "Human: X\nAssistant: "},
      {"billa-fastchat", "\nHuman: X\nAssistant: "},
      {"billa-training", "Human: X\nAssistant: "},
      {"alpaca", alpaca_system + "### Instruction:\nX\n\n### Response:\n"},
      {"alpaca-fastchat", alpaca_system + "### Instruction: X\n\n### Response:"},
      {"llama-2", "<s>[INST] X [/INST]"},
      {"llama-3",
       "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nX<|eot_id|>"
       "<|start_header_id|>assistant<|end_header_id|>\n\n"},
      {"llama-3.1",
       "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December "
       "2023\n"
       "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nX<|eot_id|>"
       "<|start_header_id|>assistant<|end_header_id|>\n\n"},
      {"mistral-v1", "<s>[INST] X [/INST]"},
      {"mistral-v1-spaced", "<s> [INST] X [/INST]"},
      {"mistral-v3", "<s>[INST] X[/INST]"},
      {"chatml", "<|im_start|>user\nX<|im_end|>\n<|im_start|>assistant\n"},
      {"smollm2",
       "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
       "<|im_start|>user\nX<|im_end|>\n<|im_start|>assistant\n"},
      {"qwen2",
       "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
       "<|im_start|>user\nX<|im_end|>\n<|im_start|>assistant\n"},
      {"qwen2.5",
       "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
       "<|im_start|>user\nX<|im_end|>\n<|im_start|>assistant\n"},
      {"qwen2.5-math",
       "<|im_start|>system\nPlease reason step by step, and put your final answer within "
       "\\boxed{}.<|im_end|>\n"
       "<|im_start|>user\nX<|im_end|>\n<|im_start|>assistant\n"},
      {"qwen3", "<|im_start|>user\nX<|im_end|>\n<|im_start|>assistant\n"},
      {"qwen3-thinking", "<|im_start|>user\nX<|im_end|>\n<|im_start|>assistant\n<think>\n"},
      {"qwen3-no-thinking", "<|im_start|>user\nX<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"},
  };
  ASSERT_EQ(expected.size(), ChatTemplates().size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(ChatTemplates()[i].name, expected[i].first);
    EXPECT_EQ(MustRender(expected[i].first.c_str(), {{"user", "X"}}), expected[i].second)
        << expected[i].first;
  }
}

TEST(ChatTemplateTest, SeveralTurns) {
  const std::vector<ChatMessage> turns = {{"user", "A"}, {"assistant", "B"}, {"user", "C"}};
  EXPECT_EQ(MustRender("belle-7b-multi-turn", turns), "Human:A\n\nAssistant:BHuman:C\n\nAssistant:");
  EXPECT_EQ(MustRender("belle-llama-ext-13b-factory", turns), "Human: A\n\nBelle: B\n\nHuman: C\n\nBelle: ");
  EXPECT_EQ(MustRender("belle-train", turns), "Human: \nA\n\nAssistant: \nB</s>Human: \nC\n\nAssistant: \n");
  EXPECT_EQ(MustRender("belle-llama2-13b", turns), "Human: \nA\n\nAssistant:B\nHuman: \nC\n\nAssistant:\n");
  EXPECT_EQ(MustRender("billa-fastchat", turns), "\nHuman: A\nAssistant: B\nHuman: C\nAssistant: ");
  EXPECT_EQ(MustRender("llama-2", turns), "<s>[INST] A [/INST] B </s><s>[INST] C [/INST]");
  EXPECT_EQ(MustRender("chatml", turns),
            "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"
            "<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplateTest, SystemMessages) {
  const std::vector<ChatMessage> turns = {{"system", " S "}, {"user", " U "}};
  EXPECT_EQ(MustRender("llama-2", turns), "<s>[INST] <<SYS>>\n S \n<</SYS>>\n\n U [/INST]");
  EXPECT_EQ(MustRender("chatml", turns),
            "<|im_start|>system\n S <|im_end|>\n<|im_start|>user\n U <|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(MustRender("smollm2", turns), MustRender("chatml", turns));
  EXPECT_EQ(MustRender("billa-fastchat", turns), " S \nHuman:  U \nAssistant: ");
  EXPECT_THAT(MustRender("belle-7b", turns),
              HasSubstr("messages[0]: this family has no place for a system message"));
}

TEST(ChatTemplateTest, TrimsWhereTheFamilyDoes) {
  EXPECT_EQ(MustRender("belle-7b", {{"user", "\n\u3000 你好 \t"}}), "Human: 你好\n\nAssistant:");
  EXPECT_EQ(MustRender("billa", {{"user", " 你好 "}}), "Human:  你好 \nAssistant: ");
  EXPECT_EQ(MustRender("llama-3", {{"user", " \xFF "}}),
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n\xFF<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

TEST(ChatTemplateTest, RefusesWhatCannotBeWritten) {
  EXPECT_THAT(MustRender("belle-7b", {}), HasSubstr("at least one is needed"));
  EXPECT_THAT(MustRender("belle-7b", {{"tool", "x"}}), HasSubstr("role \"tool\" is none of"));
  EXPECT_THAT(MustRender("belle-7b", {{std::string(5000, 'x') + "\n", "x"}}),
              HasSubstr("xxx...\" (5001 bytes) is none of"));
  EXPECT_THAT(MustRender("belle-7b", {{"a\nb", "x"}}), HasSubstr("role \"a\\nb\" is none of"));
  EXPECT_THAT(MustRender("belle-7b", {{"user", "a"}, {"user", "b"}}),
              HasSubstr("messages[1]: role user where"));
  EXPECT_THAT(MustRender("chatml", {{"user", "a"}, {"assistant", "b"}}), HasSubstr("last message must"));
  EXPECT_THAT(MustRender("chatml", {{"user", "a"}, {"system", "b"}}), HasSubstr("only the first message"));
  EXPECT_THAT(MustRender("none", {{"user", "a"}, {"assistant", "b"}, {"user", "c"}}),
              HasSubstr("only one message"));
}

TEST(ChatTemplateTest, ContentIsNeverParsedForSpecialTokens) {
  const auto chat = RenderChat(*FindChatTemplate("chatml"), std::vector<ChatMessage>{{"user", "<|im_end|>"}});
  ASSERT_TRUE(chat.ok());
  ASSERT_EQ(chat->pieces.size(), 3);
  EXPECT_TRUE(chat->pieces[0].parse_special_tokens);
  EXPECT_EQ(chat->pieces[1].text, "<|im_end|>");
  EXPECT_FALSE(chat->pieces[1].parse_special_tokens);
  EXPECT_FALSE(chat->add_special_tokens);
  EXPECT_THAT(chat->marks, ElementsAre("<|im_start|>", "<|im_end|>", "<|endoftext|>"));
}

TEST(ChatTemplateTest, EncodesWithRealTokens) {
  const auto tokenizer = LoadTokenizerFromDirectory("tests/goldens/tokenizer/smollm");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto chat = RenderChat(*FindChatTemplate("chatml"), std::vector<ChatMessage>{{"user", "<|im_end|>"}});
  ASSERT_TRUE(chat.ok());
  const auto encoded = EncodeChat(*chat, **tokenizer);
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  const TokenId start = *(*tokenizer)->FindToken("<|im_start|>"),
                end = *(*tokenizer)->FindToken("<|im_end|>");
  EXPECT_EQ(encoded->prompt.front(), start);
  EXPECT_EQ(std::count(encoded->prompt.begin(), encoded->prompt.end(), end),
            1);  // the template's, not the user's
  EXPECT_EQ((*tokenizer)->Decode(encoded->prompt, /*skip_special=*/false), chat->Text());
  EXPECT_THAT(encoded->stop_token_ids, ElementsAre(start, end, *(*tokenizer)->FindToken("<|endoftext|>")));
}

// What Qwen3's published template renders, a system message first.
TEST(ChatTemplateTest, Qwen3ForgetsEarlierThoughts) {
  const std::vector<ChatMessage> chat = {
      {"system", "S"}, {"user", "A"},      {"assistant", "<think>\nno </think> yes\n</think>\n\nB"},
      {"user", "C"},   {"assistant", "D"}, {"user", "<think>E</think>F"}};
  const std::string before =
      "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"
      "<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\nD<|im_end|>\n"
      "<|im_start|>user\n<think>E</think>F<|im_end|>\n<|im_start|>assistant\n";
  EXPECT_EQ(MustRender("qwen3", chat), before);
  EXPECT_EQ(MustRender("qwen3-thinking", chat), before + "<think>\n");
  EXPECT_EQ(MustRender("qwen3-no-thinking", chat), before + "<think>\n\n</think>\n\n");
}

TEST(ChatTemplateTest, MistralBeginsOnceAndHasTheSystemMessageInATurn) {
  const std::vector<ChatMessage> chat = {{"system", "S"}, {"user", "A"}, {"assistant", "B"}, {"user", "C"}};
  EXPECT_EQ(MustRender("mistral-v1", chat), "<s>[INST] S\n\nA [/INST] B</s>[INST] C [/INST]");
  EXPECT_EQ(MustRender("mistral-v1-spaced", chat), "<s> [INST] S\n\nA [/INST] B</s> [INST] C [/INST]");
  EXPECT_EQ(MustRender("mistral-v3", chat), "<s>[INST] A[/INST] B</s>[INST] S\n\nC[/INST]");
  EXPECT_EQ(MustRender("mistral-v3", {{"system", "S"}, {"user", "A"}}), "<s>[INST] S\n\nA[/INST]");
}

TEST(ChatTemplateTest, ChosenByTemplateText) {
  const auto choose = [](std::string text) {
    return std::string(ChooseChatTemplate({.template_text = std::move(text)}).chosen->name);
  };
  EXPECT_EQ(
      choose("{{'<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"),
      "smollm2");
  EXPECT_EQ(choose("{{'<|im_start|>' + message['role']}}"), "chatml");
  EXPECT_EQ(choose("<|im_start|>system\nYou are a helpful assistant.<|im_end|>"), "qwen2");
  EXPECT_EQ(
      choose("<|im_start|>system\nPlease reason step by step, and put your final answer within \\\\boxed{}."),
      "qwen2.5-math");
  EXPECT_EQ(choose("{{'<|start_header_id|>'}}"), "llama-3");
  EXPECT_EQ(choose("{{'<|start_header_id|>'}} Cutting Knowledge Date"), "llama-3.1");
  EXPECT_EQ(choose("[INST] <<SYS>>"), "llama-2");
  for (const char* start : {"bos_token + '[INST] '", "bos_token+\"[INST] \"", "bos_token }}{{- '[INST] '",
                            "bos_token }}[INST] {{ ''"})
    EXPECT_EQ(choose(absl::StrCat("{% for message in messages %}{{ ", start,
                                  " + message['content'] + ' [/INST]' }}{{ eos_token }}{% endfor %}")),
              "llama-2");
  EXPECT_EQ(
      choose("{{ bos_token }}{% for message in messages %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
             "{{ eos_token }}{% endfor %}"),
      "mistral-v1");
  EXPECT_EQ(
      choose("{{bos_token}}{% for message in messages %}{{' [INST] ' + message['content'] + ' [/INST]'}}"
             "{{eos_token}}{% endfor %}"),
      "mistral-v1-spaced");
  EXPECT_EQ(choose("{{ '[INST] ' + message['content'] + '[/INST]' }}{{ eos_token }}"), "mistral-v3");
  EXPECT_EQ(choose(R"({{- "[INST]" + message["content"] + "[/INST]" }}{{ eos_token }})"), "none");
  EXPECT_EQ(choose(R"({{- '<|im_start|>assistant\n' }}{%- if enable_thinking is defined %}{{- '<think>\n\n)"
                   R"(</think>\n\n' }})"),
            "qwen3");
  EXPECT_EQ(choose(R"({% if '</think>' in content %}{{- '<|im_start|>assistant\n<think>\n' }})"),
            "qwen3-thinking");
  EXPECT_EQ(choose("### Instruction:\n"), "alpaca");
  EXPECT_EQ(choose(""), "none");
}

std::string ChosenByName(std::string name, std::string architecture, int64_t vocab_size) {
  return ChooseChatTemplate({.architecture = std::move(architecture),
                             .file_names = {std::move(name)},
                             .vocab_size = vocab_size})
      .chosen->name;
}

TEST(ChatTemplateTest, ChosenByName) {
  EXPECT_EQ(ChosenByName("BELLE-7B-2M", "bloom", 250880), "belle-7b");
  EXPECT_EQ(ChosenByName("BELLE_BLOOM_GPTQ_4BIT", "bloom", 250880), "belle-7b");
  EXPECT_EQ(ChosenByName("BELLE-LLaMA-13B-2M", "llama", 32000), "belle-llama");
  EXPECT_EQ(ChosenByName("ChatBELLE-int4", "llama", 32000), "belle-llama");
  EXPECT_EQ(ChosenByName("BELLE-LLaMA-EXT-13B", "llama", 79458), "belle-llama-ext-13b");
  EXPECT_EQ(ChosenByName("BELLE-LLaMA-EXT-7B", "llama", 79458), "belle-llama-ext-7b");
  EXPECT_EQ(ChosenByName("BELLE-on-Open-Datasets", "llama", 79458), "belle-open-datasets");
  EXPECT_EQ(ChosenByName("BELLE-Llama2-13B-chat-0.4M", "llama", 32000), "belle-llama2-13b");
  EXPECT_EQ(ChosenByName("BiLLa-7B-SFT", "llama", 46943), "billa");
  EXPECT_EQ(ChosenByName("BiLLa-7B-LLM", "llama", 46943), "none");
  EXPECT_EQ(ChosenByName("Llama-2-13b-chat-hf", "llama", 32000), "llama-2");
  EXPECT_EQ(ChosenByName("Llama-2-13b-hf", "llama", 32000), "none");
  EXPECT_EQ(ChosenByName("Meta-Llama-3-8B-Instruct.Q4_K_M", "llama", 128256), "llama-3");
  EXPECT_EQ(ChosenByName("Llama-3.2-1B-Instruct", "llama", 128256), "llama-3.1");
  EXPECT_EQ(ChosenByName("Qwen2.5-0.5B-Instruct", "llama", 151936), "qwen2.5");
  EXPECT_EQ(ChosenByName("Qwen2.5-Math-7B-Instruct", "qwen2", 152064), "qwen2.5-math");
  EXPECT_EQ(ChosenByName("Qwen2-0.5B-Instruct", "llama", 151936), "qwen2");
  EXPECT_EQ(ChosenByName("Qwen3-0.6B", "qwen3", 151936), "qwen3");
  EXPECT_EQ(ChosenByName("Qwen3-4B-Thinking-2507", "qwen3", 151936), "qwen3-thinking");
  EXPECT_EQ(ChosenByName("Qwen3-8B-Base", "qwen3", 151936), "none");
  EXPECT_EQ(ChosenByName("DeepSeek-R1-0528-Qwen3-8B", "qwen3", 151936), "none");
  EXPECT_EQ(ChosenByName("SmolLM2 135M Instruct", "llama", 49152), "smollm2");
}

TEST(ChatTemplateTest, ANameDecidesNothingByAccident) {
  EXPECT_EQ(ChosenByName("isabelle-7b", "llama", 32000), "none");
  EXPECT_EQ(ChosenByName("belleville", "bloom", 250880), "none");
  EXPECT_EQ(ChosenByName("billabong", "llama", 32000), "none");
  EXPECT_EQ(ChosenByName("alpacas", "llama", 32000), "none");
}

TEST(ChatTemplateTest, WhatTheCheckpointSaysComesBeforeWhatItIsCalled) {
  ChatTemplateHints hints{
      .architecture = "llama", .model_name = "Belle 7B", .file_names = {"x", "alpaca-7b"}};
  EXPECT_STREQ(ChooseChatTemplate(hints).chosen->name, "belle-llama");
  EXPECT_EQ(ChooseChatTemplate(hints).reason, "its general.name \"Belle 7B\"");
  hints.model_name = "tiny";
  EXPECT_STREQ(ChooseChatTemplate(hints).chosen->name, "alpaca");
  EXPECT_EQ(ChooseChatTemplate(hints).reason, "its name \"alpaca-7b\"");
  EXPECT_FALSE(ChooseChatTemplate(hints).own_unrecognised);
  hints.template_text = "[INST]";
  EXPECT_STREQ(ChooseChatTemplate(hints).chosen->name, "llama-2");
}

TEST(ChatTemplateTest, AnUnknownTemplateIsTold) {
  const ChatTemplateChoice nothing = ChooseChatTemplate({});
  EXPECT_STREQ(nothing.chosen->name, "none");
  EXPECT_EQ(nothing.reason, "nothing in the checkpoint tells its family");
  const ChatTemplateChoice unknown = ChooseChatTemplate({.template_text = "<start_of_turn>"});
  EXPECT_STREQ(unknown.chosen->name, "none");
  EXPECT_TRUE(unknown.own_unrecognised);
  EXPECT_THAT(unknown.reason, HasSubstr("its own chat_template is of no known family"));
}

TEST(ModelNamesTest, AreThoseOfTheModelAlone) {
  EXPECT_EQ(ModelNames("/home/belle/models/tiny/").front(), "tiny");
  EXPECT_THAT(ModelNames("/home/belle/models/tiny/"), Each(AllOf(Not(HasSubstr("belle")), Not("models"))));
  EXPECT_EQ(ModelNames("/m/Belle.Q4_0.gguf").front(), "Belle.Q4_0");
  EXPECT_EQ(ModelNames("/m/a/../b/.").front(), "b");
  EXPECT_EQ(OwnName("/m/Belle.Q4_0.gguf"), "Belle.Q4_0.gguf");
  EXPECT_EQ(OwnName("belle-7b/"), "belle-7b");
  // Whoever serves a model from within its directory had clients ask for the model ".".
  EXPECT_EQ(OwnName("."), std::filesystem::current_path().filename().string());
  EXPECT_THAT(ModelNames("/hub/models--Org--BiLLa-7B-SFT/snapshots/0f"), ElementsAre("0f", "BiLLa-7B-SFT"));
  EXPECT_THAT(ModelNames("/hub/models--gpt2/snapshots/0f/x.gguf"), ElementsAre("x", "gpt2"));
}

TEST(ModelNamesTest, FollowLinks) {
  const testing_files::TemporaryDirectory dir;
  std::filesystem::create_directory(dir.path() + "/BELLE-7B-2M");
  std::filesystem::create_symlink("BELLE-7B-2M", dir.path() + "/current");
  EXPECT_THAT(ModelNames(dir.path() + "/current"), ElementsAre("current", "BELLE-7B-2M"));
}

}  // namespace
}  // namespace bellwether
