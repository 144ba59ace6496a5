#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/dtype.h"
#include "kernels/kernels.h"
#include "kernels/largest_value.h"
#include "kernels/packed_matrix.h"
#include "model/config.h"
#include "model/layout.h"
#include "model/streamed_layers.h"
#include "worker/decoder/batch.h"

// The wall between the model and the hardware: what a decoder step asks for, at the level of its operations.
// DecoderLayer, OutputHead and StageExecutor are written once, against these classes; a CPU (cpu_device) and
// a GPU (gpu_device) stand behind them. An absent one is a file that says so (no_cuda.cc).
//
// Pointers. Rows and vectors lie in the device's memory: the host may hand them on, add to them and compare
// them, but reads and writes through them only by way of DeviceOps::Read and Write.
//
// Time. An operation may return before its work is done; operations of one DeviceOps take effect in the order
// of the calls. What the host gave to an operation (spans of host memory) is read before it returns; a batch
// stays as it is until the next one begins. What goes wrong on the way is reported by the next Read or
// Finish, after which the DeviceOps is of no more use.

namespace bellwether {

using kernels::ConstRows;
using kernels::MutableRows;
inline ConstRows AsConst(MutableRows rows) { return {rows.data, rows.rows, rows.stride}; }

// fp32 values in the memory of a device, owned by the shard they belong to.
struct DeviceVector {
  const float* data = nullptr;
  int64_t size = 0;
  bool empty() const { return size == 0; }
};

// A norm's parameters; bias is empty with RMSNorm.
struct NormWeights {
  DeviceVector weight;  // [hidden]
  DeviceVector bias;    // [hidden]
};

// RMSNorm of each head before RoPE; empty where the model has none.
struct HeadNorms {
  DeviceVector query, key;  // [head_dim]
};

// A weight matrix W [rows, cols] in the memory of a device and in the form its kernels read. Only the device
// that made it knows more.
class DeviceMatrix {
 public:
  virtual ~DeviceMatrix() = default;
  virtual int64_t rows() const = 0;   // outputs
  virtual int64_t bytes() const = 0;  // of device memory
};

// Images of weights are whole pages of the drives that they are read from.
inline constexpr int64_t kImagePageBytes = 4096;

// Takes weights to the device: those of a layer, or those outside the layers. One thread at a time.
class WeightStore {
 public:
  virtual ~WeightStore() = default;
  // Sets the rows `rows` of a matrix, all that `packed` has, which is full of zeros before; several threads
  // may set them.
  using FillRows = absl::FunctionRef<absl::Status(Range rows, kernels::PackedMatrix& packed)>;
  // The next matrix in the device's form. All of its rows are filled at once, or some after the others where
  // they go to memory of another form: the host has no more of a large matrix than such a piece.
  // ResourceExhausted if there is not enough memory; errors of `fill`.
  virtual absl::StatusOr<std::unique_ptr<DeviceMatrix>> Pack(const kernels::MatrixSpec& spec,
                                                             FillRows fill) = 0;
  // Lives as long as the store.
  virtual absl::StatusOr<DeviceVector> Keep(std::vector<float> values) = 0;

  // -- Where the bytes of the matrices may come and go, while their shapes and the vectors stay

  // The bytes of all matrices as the device reads them and a file may keep them, in host memory on a page's
  // border, a whole number of pages long. Empty where they lie on the device for good, and once dropped.
  virtual absl::Span<std::byte> image() { return {}; }
  // Who keeps image() alive, for a thread that is not the device's; null: the store itself.
  virtual std::shared_ptr<const void> image_owner() const { return nullptr; }
  // A matrix of this shape, the next one, whose bytes are those of an image: that of image(), which somebody
  // else fills, or one that the store is moved to.
  virtual absl::StatusOr<std::unique_ptr<DeviceMatrix>> KeepImage(kernels::MatrixSpec spec) = 0;
  // From now on the matrices have their bytes at `image`, memory that operations can read, laid out as in
  // image(); null: nowhere. Not while an operation uses them.
  virtual void MoveTo(std::byte* /*image*/) {}
  // Gives the memory of image() back; the matrices have their bytes nowhere.
  virtual void DropImage() {}
  // Once, when image() is filled, of matrices that stay on the device: brings them there. Where that is other
  // memory than image()'s, which the device does not need any more, image() is empty from now on.
  virtual absl::Status Settle() { return absl::OkStatus(); }
};

// One of several products of the same input: y = x W^T + bias. A row-parallel matrix yields a partial sum for
// each root of the reduction tree that its rank owns.
struct Product {
  const DeviceMatrix* weights = nullptr;
  DeviceVector bias;  // added to every row unless empty
  float* y = nullptr;
  int64_t stride = 0;       // floats between rows of y
  int64_t root_stride = 0;  // floats between roots
};

// The operations of a step on one rank of one stage, and the memory they work in. Made for one epoch, used by
// one thread.
class DeviceOps {
 public:
  virtual ~DeviceOps() = default;

  // -- Memory. Called before the first step only: a step allocates nothing.

  // fp32 values, contents unspecified, for as long as this object lives. ResourceExhausted, naming the size.
  virtual absl::StatusOr<float*> Allocate(int64_t floats) = 0;
  // Host memory that Read and Write are fast with (pinned, for a GPU), else as above.
  virtual absl::StatusOr<float*> AllocateHost(int64_t floats) = 0;
  // Bytes of the KV cache.
  virtual int64_t kv_bytes() const = 0;

  // -- A step

  // The batch that the following operations speak of, until the next Begin; rows are counted in it.
  virtual void Begin(const Batch& batch) = 0;

  // out row r = the embedding of the batch's token r, for the tokens in [first, first + embedding.rows());
  // other rows keep what they have.
  virtual void Embed(const DeviceMatrix& embedding, TokenId first, MutableRows out) = 0;
  // RMSNorm, or LayerNorm if there is a bias. May be in place.
  virtual void Norm(ConstRows x, const NormWeights& weights, int64_t cols, double epsilon,
                    MutableRows out) = 0;
  // All matrices have the same number of columns.
  virtual void Multiply(ConstRows x, absl::Span<const Product> products) = 0;
  // The norms, if there are any, and RoPE on the query and key heads of the batch's rows `rows` (row i of
  // each is the batch's row rows.begin + i), in place, unless the model has ALiBi; then keys and values go to
  // the KV cache of `layer`, counted from the stage's first.
  virtual void RotateAndStore(int64_t layer, Range rows, const HeadNorms& norms, MutableRows query,
                              MutableRows key, ConstRows value) = 0;
  // softmax(q k + ALiBi) v over the KV cache, for every query head of this rank.
  virtual void Attend(int64_t layer, Range rows, ConstRows query, MutableRows out) = 0;
  // gate = silu(gate) * up
  virtual void SiluMultiply(MutableRows gate, ConstRows up, int64_t cols) = 0;
  // x = gelu(x), tanh form
  virtual void Gelu(MutableRows x, int64_t cols) = 0;
  // residual = before + (sum + bias), rows of `hidden` values without gaps. `sum` is used up, `before` may be
  // `residual`, bias may be empty.
  virtual void Add(ConstRows before, MutableRows sum, DeviceVector bias, MutableRows residual) = 0;
  // out row i = x row picks[i].
  virtual void PickRows(ConstRows x, absl::Span<const int32_t> picks, int64_t cols, MutableRows out) = 0;
  // Column c of every row of out = column columns[c] of x's; `columns` has whole numbers, which fp32 holds
  // exactly up to the most that a matrix may have (kernels/packed_matrix.h).
  virtual void PickColumns(ConstRows x, DeviceVector columns, MutableRows out) = 0;
  // The `count` (1 to kLargestMax) largest values of each chunk of kLargestChunk columns of each row, largest
  // first, the lowest column among equals: [rows][chunks][count], on the host until the next call. Empty
  // where the host had better look itself. Waits as Read does.
  virtual absl::StatusOr<absl::Span<const kernels::LargestValue>> Largest(ConstRows /*x*/, int64_t /*cols*/,
                                                                          int /*count*/) {
    return absl::Span<const kernels::LargestValue>();
  }
  // out = the sum of `roots` ([count] floats each, covering the whole tree from left to right) in tree order.
  // Which nodes of the tree they are was told when this object was made.
  virtual void SumRoots(absl::Span<const float* const> roots, int64_t count, float* out) = 0;

  // -- Weights that come and go (worker/weights/layer_source.h): images of stores, in slots by turns

  // Room for as many images of up to `bytes` each, before the first step. False: operations read images where
  // the host has them, so that filling a slot takes nothing and it is in use until it is released.
  virtual absl::StatusOr<bool> ReserveSlots(int /*slots*/, int64_t /*bytes*/) { return false; }
  // Begins to bring `image`, which stays as it is until SlotFilled, to a slot that is released or new; where
  // it will be, for WeightStore::MoveTo.
  virtual std::byte* FillSlot(int /*slot*/, absl::Span<std::byte> image) { return image.data(); }
  // Operations from now on find the slot filled.
  virtual void UseSlot(int /*slot*/) {}
  // Whether the image has been brought there, without waiting. Errors are Finish's.
  virtual absl::StatusOr<bool> SlotFilled(int /*slot*/) { return true; }
  // What has been asked for so far is the last that uses the slot.
  virtual absl::Status ReleaseSlot(int /*slot*/) { return Finish(); }

  // -- Between device and host

  // Waits until all that was asked for is done and gives the values at `from`. The error of the first
  // operation that failed.
  virtual absl::Status Read(const float* from, absl::Span<float> to) = 0;
  virtual absl::Status Write(absl::Span<const float> from, float* to) = 0;
  // The same, in order with operations and perhaps later: `from` stays as it is until somebody has waited.
  virtual absl::Status WriteLater(absl::Span<const float> from, float* to) { return Write(from, to); }
  // Waits until all that was asked for is done.
  virtual absl::Status Finish() = 0;
  // `data`, where the host works on the device's memory itself and operations are done when they return; null
  // elsewhere. Lets links and sampling work in place on a CPU.
  virtual float* HostView(float* data) = 0;

  // -- On the host

  // body(begin, end) for parts of [0, items), on as many threads as this has on the host; returns when all
  // are done. For what the host does in a step, such as sampling.
  virtual void OnHost(int64_t items, absl::FunctionRef<void(int64_t begin, int64_t end)> body) {
    if (items > 0) body(0, items);
  }
};

// Host memory for an image of weights: zeros, on a page's border. ResourceExhausted, naming the size.
absl::StatusOr<std::shared_ptr<std::byte>> NewPlainImage(int64_t bytes);

// One CPU (with its threads) or one GPU.
class Device {
 public:
  struct OpsOptions {
    const ModelConfig* config = nullptr;  // outlives the ops
    std::string kernel_level;             // of the assignment
    RankLayout rank;
    int64_t layers = 0;  // of this stage
    int32_t kv_blocks = 0;
    DType kv_type = DType::kF32;
    int32_t context_tokens = 0;     // of a sequence, at most
    int32_t step_tokens = 0;        // of a step, at most
    int gpu_limbs = 1;              // of activations, at most (model/gpu_size.h)
    bool cores_are_short = false;   // threads of the host that wait had better sleep than spin
    std::vector<SliceRange> roots;  // of all ranks of the stage, left to right: what SumRoots adds
  };

  virtual ~Device() = default;
  // "cpu, 2 threads"
  virtual std::string Describe() const = 0;
  // Rows of a batch that a layer takes at once (model/row_limits.h).
  virtual int64_t layer_rows_max() const = 0;
  // For matrices like these, in this order, and their vectors, which always lie on the device. Else than
  // kDevice the store has an image; `with_image`, there too, until Settle: ResourceExhausted where the host
  // has no room for that. FailedPrecondition where the device has no use for `home`.
  virtual absl::StatusOr<std::shared_ptr<WeightStore>> NewWeightStore(
      absl::Span<const kernels::MatrixSpec> matrices, WeightHome home, bool with_image) = 0;
  // What tells its images from those of devices that read other forms: "packed 3".
  virtual std::string image_form() const = 0;
  // Whether they are packed matrices (worker/device/packed_store.h), from which a host looks up the rows of
  // an embedding that is streamed.
  virtual bool keeps_packed_images() const { return false; }
  // Host memory for images that come and go: zeros, on a page's border, pinned for a GPU. May be given back
  // from any thread. ResourceExhausted, naming the size.
  virtual absl::StatusOr<std::shared_ptr<std::byte>> NewImage(int64_t bytes) = 0;
  // ResourceExhausted, saying what for, if the KV cache or scratch does not fit; InvalidArgument or
  // FailedPrecondition if this device cannot compute as `kernel_level` says.
  virtual absl::StatusOr<std::unique_ptr<DeviceOps>> NewOps(const OpsOptions& options) = 0;
  // An error if this process can do nothing more with the device, as after a fault of a GPU: it must end, and
  // one that is started anew may be well. From the thread that uses the device.
  virtual absl::Status Health() { return absl::OkStatus(); }
};

}  // namespace bellwether
