#include "safetensors_file.h"

#include <algorithm>
#include <tuple>

#include "output_folder.h"
#include "text.h"

namespace offline {

void write_safetensors(const std::filesystem::path& path, std::vector<NamedTensor> tensors) {
  const auto key = [](const NamedTensor& tensor) {
    return std::tuple(-std::stoi(tensor.dtype.substr(1)), tensor.name);
  };
  std::sort(tensors.begin(), tensors.end(),
            [&key](const NamedTensor& one, const NamedTensor& other) { return key(one) < key(other); });
  Json header = Json::object();
  size_t offset = 0;
  for (const NamedTensor& tensor : tensors) {
    header[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + tensor.bytes}}};
    offset += tensor.bytes;
  }
  std::string text = header.dump();
  constexpr size_t kAlignment = 8;
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  OutputFile file(path);
  uint8_t size[8];
  for (size_t i = 0; i < sizeof size; ++i) size[i] = static_cast<uint8_t>(text.size() >> (8 * i));
  file.write(size, sizeof size);
  file.write(text.data(), text.size());
  for (const NamedTensor& tensor : tensors) file.write(tensor.data, tensor.bytes);
  file.close();
}

}  // namespace offline
