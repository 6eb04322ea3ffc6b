// Backend::kTest: stages compute checksums instead of a network, so that every byte of every input changes every
// output.
//
// d = crc32 (as zlib's) of all inputs' bytes, in the manifest's order. Element i of output k, counted from 0 in the
// manifest's order, is ((d + 40503 k + 2654435761 i) mod 2^32) >> 24: as it is in integer types, divided by 256 in
// floating-point types, which is exact in all of them.
//
// The encoder computes each image by itself, as the network's encoder does: the tokens of an image are its special
// tokens, unchanged, then elements as above, with d = crc32 of the image alone.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/engine.h"

namespace page4d {

uint32_t crc32(uint32_t before, const void* data, size_t size) noexcept;

// One call of a stage, over host memory.
class Checksum {
 public:
  // Addresses in the order of the stage's inputs and outputs.
  Checksum(const Stage& stage, const std::vector<Address>& inputs, const std::vector<Address>& outputs);
  void compute() const noexcept;

 private:
  void encode() const noexcept;

  struct Part {
    void* data;
    int64_t count;
    DType dtype;
  };
  static void fill(const Part& part, uint32_t start) noexcept;

  std::vector<Part> inputs_, outputs_;
  int64_t images_ = 0;  // of an encoder
};

class ChecksumEngine final : public Engine {
 public:
  // The device calls the checksum as a function on the host: the host must be able to read its memory.
  ChecksumEngine(const Stage& stage, Device& device) : stage_(stage), device_(device) {}

  size_t scratch() const override { return 0; }
  std::unique_ptr<BoundCall> bind(const std::vector<Address>& inputs, const std::vector<Address>& outputs,
                                  void* scratch) override;

 private:
  const Stage& stage_;
  Device& device_;
};

// Engines on the host. The manifest must outlive them.
std::unique_ptr<EngineLoader> checksum_loader();

}  // namespace page4d
