#include "model/checkpoint/torch_archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/checkpoint/testing_torch.h"
#include "model/checkpoint/torch_pickle.h"
#include "model/checkpoint/zip.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing_files::Bytes;
using testing_files::TorchFile;
using testing_files::ZipWriter;
namespace pickle = testing_files::pickle;

absl::Span<const std::byte> BytesOf(const std::string& file) {
  return {reinterpret_cast<const std::byte*>(file.data()), file.size()};
}

absl::StatusOr<std::vector<FileTensor>> Parse(const std::string& file) {
  return ParseTorchArchive(BytesOf(file));
}

std::string Refusal(const std::string& file) { return Parse(file).status().ToString(); }

// Six floats, 2 x 3.
const std::string kStorage = Bytes(std::vector<float>{0, 1, 2, 3, 4, 5});
std::string Matrix() { return pickle::Tensor(pickle::Storage("FloatStorage", "0", 6), 0, {2, 3}, {3, 1}); }

// A file with one tensor, "w", over kStorage.
std::string OneTensor(const std::string& tensor) {
  return TorchFile(pickle::Whole(pickle::OrderedDict({{"w", tensor}})), {{"0", kStorage}});
}

std::vector<float> FloatsAt(const std::string& file, uint64_t offset, size_t count) {
  std::vector<float> values(count);
  std::memcpy(values.data(), file.data() + offset, count * sizeof(float));
  return values;
}

TEST(TorchArchiveTest, TensorsOfAStateDict) {
  const std::string half = Bytes(std::vector<uint16_t>{0x3c00, 0x4000});
  const std::string file =
      TorchFile(pickle::Whole(pickle::OrderedDict(
                    {{"w", Matrix()},
                     {"b", pickle::Tensor(pickle::Storage("HalfStorage", "1", 2), 0, {2}, {1})},
                     {"steps", pickle::Tensor(pickle::Storage("LongStorage", "2", 1), 0, {}, {})}})),
                {{"0", kStorage}, {"1", half}, {"2", std::string(8, '\0')}});
  const auto tensors = Parse(file);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 3u);
  const FileTensor& w = (*tensors)[0];
  EXPECT_EQ(w.name, "w");
  EXPECT_EQ(w.dtype, "F32");
  EXPECT_THAT(w.shape, ElementsAre(2, 3));
  EXPECT_THAT(w.strides, IsEmpty());
  EXPECT_EQ(w.bytes, 24u);
  EXPECT_EQ(w.offset % 64, 0u);
  EXPECT_THAT(FloatsAt(file, w.offset, 6), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_EQ((*tensors)[1].dtype, "F16");
  EXPECT_EQ(file.substr((*tensors)[1].offset, (*tensors)[1].bytes), half);
  EXPECT_EQ((*tensors)[2].dtype, "I64");
  EXPECT_THAT((*tensors)[2].shape, IsEmpty());
  EXPECT_EQ((*tensors)[2].bytes, 8u);
}

TEST(TorchArchiveTest, ViewsAndSharedStorages) {
  const std::string storage = pickle::Storage("FloatStorage", "0", 6);
  const std::string file =
      TorchFile(pickle::Whole(pickle::OrderedDict({{"whole", pickle::Tensor(storage, 0, {2, 3}, {3, 1})},
                                                   {"tied", pickle::Tensor(storage, 0, {2, 3}, {3, 1})},
                                                   {"last", pickle::Tensor(storage, 3, {1, 3}, {77, 1})},
                                                   {"transposed", pickle::Tensor(storage, 0, {3, 2}, {1, 3})},
                                                   {"column", pickle::Tensor(storage, 1, {2}, {3})},
                                                   {"none", pickle::Tensor(storage, 6, {0, 3}, {3, 1})}})),
                {{"0", kStorage}});
  const auto tensors = Parse(file);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 6u);
  EXPECT_EQ((*tensors)[0].offset, (*tensors)[1].offset);
  EXPECT_EQ((*tensors)[2].offset, (*tensors)[0].offset + 12);
  EXPECT_THAT((*tensors)[2].strides, IsEmpty());  // of one row the stride means nothing
  EXPECT_THAT((*tensors)[3].strides, ElementsAre(1, 3));
  EXPECT_EQ((*tensors)[3].bytes, 24u);
  EXPECT_THAT((*tensors)[4].strides, ElementsAre(3));
  EXPECT_EQ((*tensors)[4].bytes, 16u);
  EXPECT_EQ((*tensors)[5].bytes, 0u);
}

TEST(TorchArchiveTest, ViewsBeyondTheirStorageAreRefused) {
  const auto view = [&](int64_t first, const std::vector<int64_t>& shape,
                        const std::vector<int64_t>& strides) {
    return Refusal(OneTensor(pickle::Tensor(pickle::Storage("FloatStorage", "0", 6), first, shape, strides)));
  };
  constexpr int64_t kHuge = INT64_MAX;
  EXPECT_THAT(view(0, {2, 4}, {4, 1}), HasSubstr("tensor \"w\" reaches beyond the 6 elements"));
  EXPECT_THAT(view(1, {2, 3}, {3, 1}), HasSubstr("reaches beyond"));
  EXPECT_THAT(view(0, {2, 3}, {kHuge, 1}), HasSubstr("reaches beyond"));
  EXPECT_THAT(view(kHuge, {1}, {1}), HasSubstr("reaches beyond"));
  EXPECT_THAT(view(0, {kHuge, kHuge}, {0, 0}), HasSubstr("reaches beyond"));
  EXPECT_THAT(view(0, {kHuge, 2}, {1, kHuge}), HasSubstr("reaches beyond"));
  EXPECT_THAT(view(-1, {1}, {1}), HasSubstr("a tensor of unknown form"));
  EXPECT_THAT(view(0, {2}, {-1}), HasSubstr("a shape or strides that are none"));
  EXPECT_THAT(view(0, {2, 3}, {1}), HasSubstr("as many strides as dimensions"));
  EXPECT_THAT(view(0, std::vector<int64_t>(9, 1), std::vector<int64_t>(9, 1)), HasSubstr("a shape"));
}

TEST(TorchArchiveTest, StoragesMustFitTheirEntries) {
  const auto storage = [&](const std::string& type, const std::string& key, int64_t elements) {
    return Refusal(OneTensor(pickle::Tensor(pickle::Storage(type, key, elements), 0, {1}, {1})));
  };
  EXPECT_THAT(storage("FloatStorage", "7", 6), HasSubstr("lies in \"7\", which is not there"));
  EXPECT_THAT(storage("FloatStorage", "0", 5), HasSubstr("24 bytes where 5 elements of type F32 should be"));
  EXPECT_THAT(storage("FloatStorage", "0", 7), HasSubstr("should be"));
  EXPECT_THAT(storage("DoubleStorage", "0", 6), HasSubstr("should be"));
  EXPECT_THAT(storage("FloatStorage", "0", -6), HasSubstr("an unknown persistent id"));
  EXPECT_THAT(storage("FloatStorage", "../data.pkl", 6), HasSubstr("which is not there"));
}

TEST(TorchArchiveTest, WrappersOfTrainersAreOpened) {
  const std::string dict = pickle::OrderedDict({{"module.w", Matrix()}});
  for (const std::string& whole :
       {pickle::Dict({{"epoch", pickle::Integer(3)}, {"state_dict", dict}}), pickle::Dict({{"model", dict}}),
        pickle::Dict({{"module", pickle::Dict({{"state_dict", dict}})}, {"rng", Matrix()}})}) {
    const auto tensors = Parse(TorchFile(pickle::Whole(whole), {{"0", kStorage}}));
    ASSERT_TRUE(tensors.ok()) << tensors.status();
    ASSERT_EQ(tensors->size(), 1u);
    EXPECT_EQ((*tensors)[0].name, "module.w");
  }
  const std::string parameter = pickle::Call(pickle::Global("torch._utils", "_rebuild_parameter"),
                                             {Matrix(), "\x88", pickle::Dict({})});
  EXPECT_TRUE(Parse(OneTensor(parameter)).ok());
  EXPECT_THAT(Refusal(TorchFile(pickle::Whole(pickle::Dict({})), {})), HasSubstr("holds no state dict"));
  EXPECT_THAT(Refusal(TorchFile(pickle::Whole(pickle::Integer(1)), {})), HasSubstr("holds no state dict"));
}

// What DeepSpeed's engine puts around a model (mp_rank_00_model_states.pt), with the values that it has
// there.
TEST(TorchArchiveTest, WhatDeepSpeedSaves) {
  const std::string set = pickle::Global("__builtin__", "set") + "]\x85R";
  const std::string shape = pickle::Call(pickle::Global("torch", "Size"), {pickle::Integers({2, 3})});
  const std::string whole = pickle::Dict(
      {{"module", pickle::OrderedDict({{"module.w", Matrix()}})},
       {"buffer_names", "](" + pickle::Text("b") + "e"},
       {"optimizer", "N"},
       {"param_shapes", "](" + pickle::OrderedDict({{"w", shape}}) + "e"},
       {"frozen_param_shapes", "N"},
       {"shared_params", pickle::Dict({})},
       {"frozen_param_fragments", "N"},
       {"lr_scheduler", pickle::Dict({{"last_lr", "](G" + std::string(8, '\x3f') + "e"}})},
       {"data_sampler", "N"},
       {"random_ltd", "N"},
       {"sparse_tensor_module_names", set},
       {"skipped_steps", pickle::Integer(0)},
       {"global_steps", pickle::Integer(7)},
       {"global_samples", pickle::Integer(56)},
       {"dp_world_size", pickle::Integer(8)},
       {"mp_world_size", pickle::Integer(1)},
       {"ds_config",
        pickle::Dict({{"zero_optimization", pickle::Dict({{"stage", pickle::Integer(2)}})},
                      {"names", pickle::Global("builtins", "set") + "](" + pickle::Text("w") + "e\x85R"}})},
       {"ds_version", pickle::Text("0.9.5")},
       {"dtype", pickle::Global("torch", "bfloat16")}});
  const auto tensors = Parse(TorchFile(pickle::Whole(whole), {{"0", kStorage}}));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 1u);
  EXPECT_EQ((*tensors)[0].name, "module.w");
  const auto refusal = [](const std::string& value) { return Refusal(OneTensor(value)); };
  EXPECT_THAT(refusal(pickle::Call(pickle::Global("builtins", "set"), {pickle::Text("x")})),
              HasSubstr("a set of unknown form"));
  EXPECT_THAT(refusal(pickle::Call(pickle::Global("torch", "bfloat16"), {})),
              HasSubstr("a call of no function"));
}

// Tensors may be views that negate or conjugate as they are read.
TEST(TorchArchiveTest, ValuesThatAreNotThoseOfTheStorageAreRefused) {
  const auto with = [](const std::string& metadata) {
    return OneTensor(
        pickle::Call(pickle::Global("torch._utils", "_rebuild_tensor_v2"),
                     {pickle::Storage("FloatStorage", "0", 6), pickle::Integer(0), pickle::Integers({2, 3}),
                      pickle::Integers({3, 1}), "\x89",
                      pickle::Call(pickle::Global("collections", "OrderedDict"), {}), metadata}));
  };
  EXPECT_TRUE(Parse(with("N")).ok());
  EXPECT_TRUE(Parse(with(pickle::Dict({{"neg", "\x89"}, {"conj", "\x89"}}))).ok());
  EXPECT_THAT(Refusal(with(pickle::Dict({{"conj", "\x89"}, {"neg", "\x88"}}))),
              HasSubstr("a tensor that is marked \"neg\""));
  EXPECT_THAT(Refusal(with(pickle::Dict({{"conj", "\x88"}}))), HasSubstr("marked \"conj\""));
  EXPECT_THAT(Refusal(with(pickle::Integer(1))), HasSubstr("a tensor of unknown form"));
}

TEST(TorchPickleTest, NothingIsEverCalled) {
  const auto call = [](const std::string& module, const std::string& name) {
    return Refusal(OneTensor(pickle::Call(pickle::Global(module, name), {pickle::Text("touch /tmp/x")})));
  };
  EXPECT_THAT(call("os", "system"), HasSubstr("the pickle asks for \"os.system\""));
  EXPECT_THAT(call("builtins", "eval"), HasSubstr("\"builtins.eval\""));
  EXPECT_THAT(call("torch", "FloatStorage "), HasSubstr("\"torch.FloatStorage \""));
  EXPECT_THAT(call("torch", "FloatStorage"), HasSubstr("a call of no function"));
  EXPECT_THAT(Refusal(OneTensor("i")), HasSubstr("opcode 0x69 at byte"));
  EXPECT_THAT(Refusal(OneTensor("\x93")), HasSubstr("opcode 0x93 at byte"));
  EXPECT_THAT(Refusal(TorchFile("\x80\x04}.", {})), HasSubstr("protocol 4, not 2,"));
}

std::string PickleRefusal(const std::string& pickle) {
  return ReadTorchPickle(BytesOf(pickle)).status().ToString();
}

TEST(TorchPickleTest, DamageIsRefused) {
  EXPECT_THAT(PickleRefusal(""), HasSubstr("cut short at byte 0"));
  EXPECT_THAT(PickleRefusal("\x80\x02"), HasSubstr("cut short at byte 2"));
  EXPECT_THAT(PickleRefusal("."), HasSubstr("more or less than one value"));
  EXPECT_THAT(PickleRefusal("NN."), HasSubstr("more or less than one value"));
  EXPECT_THAT(PickleRefusal("(N."), HasSubstr("more or less than one value"));
  EXPECT_THAT(PickleRefusal("t"), HasSubstr("no mark"));
  EXPECT_THAT(PickleRefusal("N(\x85"), HasSubstr("nothing to take"));  // below the mark
  EXPECT_THAT(PickleRefusal("}(Nu."), HasSubstr("a key without a value"));
  EXPECT_THAT(PickleRefusal("](NNu."), HasSubstr("a value of the wrong kind"));
  EXPECT_THAT(PickleRefusal("h\x07."), HasSubstr("never remembered"));
  EXPECT_THAT(PickleRefusal("q\x07."), HasSubstr("nothing to remember"));
  EXPECT_THAT(PickleRefusal("X\xff\xff\xff\xff."), HasSubstr("cut short"));
  EXPECT_THAT(PickleRefusal("cos\nsystem"), HasSubstr("cut short"));
  EXPECT_THAT(PickleRefusal("\x8a\x09" + std::string(9, 'x') + "."), HasSubstr("beyond 64 bits"));
  EXPECT_THAT(PickleRefusal("NQ."), HasSubstr("an unknown persistent id"));
  EXPECT_THAT(PickleRefusal("NNR."), HasSubstr("a call of no function"));
}

TEST(TorchPickleTest, WhatAPickleMayTakeIsBounded) {
  EXPECT_THAT(PickleRefusal(std::string(kPickleValuesMax + 1, 'N')), HasSubstr("values"));
  EXPECT_THAT(PickleRefusal(std::string(kPickleValuesMax + 1, '(')), HasSubstr("too many marks"));
  // A list that contains itself, and tuples within tuples.
  EXPECT_THAT(PickleRefusal("]q\x01h\x01"
                            "a."),
              HasSubstr("holds no state dict"));
  EXPECT_THAT(PickleRefusal(")" + std::string(1'000'000, '\x85') + "."), HasSubstr("holds no state dict"));
  std::string names = "}(" + pickle::Text("w") + "Nq\x01";
  for (size_t i = 0; i < kFileTensorsMax; ++i) names += pickle::Text("w") + "h\x01";
  EXPECT_THAT(PickleRefusal(names + "u."), HasSubstr("more than 131072 tensors"));
  std::string itself = "}q\x01";
  for (int i = 0; i < 3; ++i) itself += pickle::Text("model") + "h\x01s";
  EXPECT_THAT(PickleRefusal(itself + "."), HasSubstr("holds no state dict"));
  std::string again = "Nq\x01";
  for (size_t i = 0; i < kPickleStepsMax / 4; ++i)
    again +=
        "](h\x01"
        "eh\x01";
  EXPECT_THAT(PickleRefusal(again), HasSubstr("too high a stack"));
}

TEST(ZipTest, EntriesAndTheirPlaces) {
  ZipWriter zip;
  zip.Add("a/one", "111");
  zip.Add("a/two", "", {.flags = 8});
  zip.Add("a/three", "33333", {.zip64 = true});
  for (const bool zip64 : {false, true}) {
    const std::string file = zip.file(zip64);
    EXPECT_TRUE(IsZip(BytesOf(file)));
    const auto entries = ParseZip(BytesOf(file));
    ASSERT_TRUE(entries.ok()) << entries.status();
    ASSERT_EQ(entries->size(), 3u);
    EXPECT_EQ((*entries)[0].name, "a/one");
    EXPECT_EQ(file.substr((*entries)[0].offset, (*entries)[0].bytes), "111");
    EXPECT_EQ((*entries)[1].bytes, 0u);
    EXPECT_EQ(file.substr((*entries)[2].offset, (*entries)[2].bytes), "33333");
  }
}

std::string ZipRefusal(const std::string& file) { return ParseZip(BytesOf(file)).status().ToString(); }

TEST(ZipTest, HostileArchivesAreRefused) {
  const auto one = [](const std::string& name, const ZipWriter::Options& options) {
    ZipWriter zip;
    zip.Add(name, "data", options);
    return ZipRefusal(zip.file());
  };
  EXPECT_THAT(one("a", {.method = 8}), HasSubstr("entry \"a\" is compressed"));
  EXPECT_THAT(one("a", {.flags = 1}), HasSubstr("is encrypted"));
  EXPECT_THAT(one("/etc/passwd", {}), HasSubstr("leads out of the archive"));
  EXPECT_THAT(one("a/../b", {}), HasSubstr("leads out of the archive"));
  EXPECT_THAT(one(std::string(2000, 'a'), {}), HasSubstr("the directory is damaged"));

  ZipWriter twice;
  twice.Add("a", "1");
  twice.Add("a", "2");
  EXPECT_THAT(ZipRefusal(twice.file()), HasSubstr("entry \"a\" is there twice"));
  ZipWriter overlap;
  overlap.Add("a", "1");
  overlap.AddToDirectory("b", 0, 1, {});
  EXPECT_THAT(ZipRefusal(overlap.file()), HasSubstr("entries overlap"));
  ZipWriter beyond;
  beyond.Add("a", "1");
  beyond.AddToDirectory("b", 1 << 20, 1, {});
  EXPECT_THAT(ZipRefusal(beyond.file()), HasSubstr("entry \"b\" has no header where the directory says"));
  ZipWriter large;
  large.Add("a", "1");
  large.AddToDirectory("b", 0, UINT64_MAX, {.zip64 = true});
  EXPECT_THAT(ZipRefusal(large.file()), HasSubstr("does not fit the file"));
  EXPECT_THAT(ZipRefusal("PK\x03\x04"), HasSubstr("shorter than a zip archive"));
  EXPECT_THAT(ZipRefusal(std::string(100, 'x')), HasSubstr("a zip archive without its end"));
}

TEST(ZipTest, FilesCutAnywhereAreRefused) {
  const std::string file = OneTensor(Matrix());
  ASSERT_TRUE(Parse(file).ok()) << Parse(file).status();
  for (size_t size = 0; size < file.size(); ++size) EXPECT_FALSE(Parse(file.substr(0, size)).ok()) << size;
}

TEST(TorchArchiveTest, OtherArchivesAreRefused) {
  ZipWriter zip;
  zip.Add("word/document.xml", "x");
  EXPECT_THAT(Refusal(zip.file()), HasSubstr("without a data.pkl"));
  ZipWriter big;
  big.Add("archive/data.pkl", pickle::Whole(pickle::OrderedDict({{"w", Matrix()}})));
  big.Add("archive/byteorder", "big");
  EXPECT_THAT(Refusal(big.file()), HasSubstr("the byte order \"big\""));
  ZipWriter two;
  for (const std::string folder : {"archive", "other"}) {
    two.Add(folder + "/data.pkl", pickle::Whole(pickle::OrderedDict({{"w", Matrix()}})));
    two.Add(folder + "/data/0", kStorage);
  }
  EXPECT_THAT(Refusal(two.file()), HasSubstr("the folders \"archive\" and \"other\" hold a data.pkl each"));
}

}  // namespace
}  // namespace bellwether
