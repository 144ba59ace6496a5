#pragma once

#include "google/protobuf/arena.h"
#include "grpcpp/support/message_allocator.h"

namespace bellwether {

// Puts the messages of each call on an arena of their own, of large blocks, which go back to the system with
// the call. For answers of very many small parts, which the allocator of the process would keep in its heaps.
template <typename Request, typename Response>
class ArenaMessages final : public grpc::MessageAllocator<Request, Response> {
 public:
  grpc::MessageHolder<Request, Response>* AllocateMessages() override { return new Holder; }

 private:
  class Holder final : public grpc::MessageHolder<Request, Response> {
   public:
    Holder() : arena_(LargeBlocks()) {
      this->set_request(google::protobuf::Arena::CreateMessage<Request>(&arena_));
      this->set_response(google::protobuf::Arena::CreateMessage<Response>(&arena_));
    }
    void Release() override { delete this; }

   private:
    // They begin small and double.
    static google::protobuf::ArenaOptions LargeBlocks() {
      google::protobuf::ArenaOptions options;
      options.max_block_size = 4 << 20;
      return options;
    }
    google::protobuf::Arena arena_;
  };
};

}  // namespace bellwether
