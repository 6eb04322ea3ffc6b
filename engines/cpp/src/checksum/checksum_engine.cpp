#include "checksum/checksum_engine.h"

#include <array>
#include <cstring>
#include <utility>

#include "runtime/host_device.h"

namespace page4d {
namespace {

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0u);
    table[i] = value;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kTable = make_table();

// The bits of n/256, n in 0..255: exact in either type.
uint16_t float16_of(uint32_t n) {
  if (n == 0) return 0;
  int top = 7;
  while ((n >> top & 1) == 0) --top;
  return static_cast<uint16_t>((top - 8 + 15) << 10 | (n << (10 - top) & 0x3ff));
}

uint16_t bfloat16_of(uint32_t n) {
  const float value = static_cast<float>(n) / 256;
  uint32_t bits = 0;
  std::memcpy(&bits, &value, 4);
  return static_cast<uint16_t>(bits >> 16);
}

template <class T, class Convert>
void spread(void* target, int64_t count, uint32_t start, const Convert& convert) {
  auto* out = static_cast<unsigned char*>(target);
  for (int64_t i = 0; i < count; ++i) {
    const T value = convert((start + 2654435761u * static_cast<uint32_t>(i)) >> 24);
    std::memcpy(out + static_cast<size_t>(i) * sizeof(T), &value, sizeof(T));
  }
}

class ChecksumCall final : public BoundCall {
 public:
  ChecksumCall(Device& device, Checksum checksum) : device_(device), checksum_(std::move(checksum)) {}

  Failure launch(Stream stream) noexcept override {
    return device_.call_host([](void* checksum) { static_cast<const Checksum*>(checksum)->compute(); }, &checksum_,
                             stream);
  }

 private:
  Device& device_;
  Checksum checksum_;
};

class ChecksumLoader final : public EngineLoader {
 public:
  std::string described() const override { return "checksums in place of a network"; }
  Device& device() override { return device_; }
  std::unique_ptr<Engine> load(const Stage& stage) override { return std::make_unique<ChecksumEngine>(stage, device_); }

 private:
  HostDevice device_;
};

}  // namespace

uint32_t crc32(uint32_t before, const void* data, size_t size) noexcept {
  const auto* bytes = static_cast<const unsigned char*>(data);
  uint32_t sum = ~before;
  for (size_t i = 0; i < size; ++i) sum = kTable[(sum ^ bytes[i]) & 0xff] ^ sum >> 8;
  return ~sum;
}

Checksum::Checksum(const Stage& stage, const std::vector<Address>& inputs, const std::vector<Address>& outputs) {
  for (size_t i = 0; i < inputs.size(); ++i)
    inputs_.push_back({inputs[i].second, stage.inputs[i].count(), stage.inputs[i].dtype});
  for (size_t i = 0; i < outputs.size(); ++i)
    outputs_.push_back({outputs[i].second, stage.outputs[i].count(), stage.outputs[i].dtype});
  const TensorSpec *pixels = stage.input("images"), *special = stage.input("special"), *tokens = stage.output("tokens");
  bool is_encoder = pixels == stage.inputs.data() && special == pixels + 1 && tokens != nullptr &&
                    tokens == stage.outputs.data() && inputs_.size() == 2;
  for (const TensorSpec& spec : stage.outputs) is_encoder = is_encoder && spec.shape.front() == pixels->shape.front();
  if (is_encoder && special->shape.front() == pixels->shape.front() && tokens->shape.front() == pixels->shape.front() &&
      special->dtype == tokens->dtype && special->count() < tokens->count()) {
    images_ = pixels->shape.front();
  }
}

void Checksum::encode() const noexcept {
  const Part &pixels = inputs_[0], &special = inputs_[1], &tokens = outputs_[0];
  const size_t image = static_cast<size_t>(pixels.count / images_),
               special_bytes = static_cast<size_t>(special.count / images_) * bytes_of(special.dtype),
               token_bytes = static_cast<size_t>(tokens.count / images_) * bytes_of(tokens.dtype);
  for (size_t i = 0; i < static_cast<size_t>(images_); ++i) {
    const uint32_t sum = crc32(0, static_cast<const unsigned char*>(pixels.data) + i * image, image);
    auto* target = static_cast<unsigned char*>(tokens.data) + i * token_bytes;
    std::memcpy(target, static_cast<const unsigned char*>(special.data) + i * special_bytes, special_bytes);
    fill({target + special_bytes, (tokens.count - special.count) / images_, tokens.dtype}, sum);
    for (size_t k = 1; k < outputs_.size(); ++k) {
      const Part& other = outputs_[k];
      const size_t bytes = static_cast<size_t>(other.count / images_) * bytes_of(other.dtype);
      fill({static_cast<unsigned char*>(other.data) + i * bytes, other.count / images_, other.dtype},
           sum + 40503u * static_cast<uint32_t>(k));
    }
  }
}

void Checksum::compute() const noexcept {
  if (images_ > 0) return encode();
  uint32_t sum = 0;
  for (const Part& part : inputs_) sum = crc32(sum, part.data, static_cast<size_t>(part.count) * bytes_of(part.dtype));
  for (size_t k = 0; k < outputs_.size(); ++k) fill(outputs_[k], sum + 40503u * static_cast<uint32_t>(k));
}

void Checksum::fill(const Part& part, uint32_t start) noexcept {
  switch (part.dtype) {
    case DType::kUint8:
      spread<uint8_t>(part.data, part.count, start, [](uint32_t n) { return static_cast<uint8_t>(n); });
      break;
    case DType::kInt32:
      spread<int32_t>(part.data, part.count, start, [](uint32_t n) { return static_cast<int32_t>(n); });
      break;
    case DType::kFloat32:
      spread<float>(part.data, part.count, start, [](uint32_t n) { return static_cast<float>(n) / 256; });
      break;
    case DType::kFloat16:
      spread<uint16_t>(part.data, part.count, start, float16_of);
      break;
    case DType::kBfloat16:
      spread<uint16_t>(part.data, part.count, start, bfloat16_of);
      break;
    case DType::kFloat64:
      break;  // no engine has it
  }
}

std::unique_ptr<BoundCall> ChecksumEngine::bind(const std::vector<Address>& inputs, const std::vector<Address>& outputs,
                                                void*) {
  return std::make_unique<ChecksumCall>(device_, Checksum(stage_, inputs, outputs));
}

std::unique_ptr<EngineLoader> checksum_loader() { return std::make_unique<ChecksumLoader>(); }

}  // namespace page4d
