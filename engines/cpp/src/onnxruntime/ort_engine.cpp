#include "onnxruntime/ort_engine.h"

#include <algorithm>
#include <cstdio>

#include "text.h"

namespace page4d {
namespace {

ONNXTensorElementDataType onnx_type_of(DType dtype) {
  switch (dtype) {
    case DType::kUint8:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    case DType::kInt32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
    default:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }
}

class OrtCall final : public BoundCall {
 public:
  OrtCall(const OrtApi& api, OrtSession* session, OrtOwned<OrtIoBinding> binding, Device& device)
      : api_(api), session_(session), binding_(std::move(binding)), device_(device) {}

  Failure launch(Stream stream) noexcept override {
    // a session computes on the device's own stream, and has finished when it returns
    if (const Failure failure = device_.synchronize(stream)) return failure;
    OrtStatus* status = api_.RunWithBinding(session_, nullptr, binding_.get());
    if (status == nullptr) return nullptr;
    std::snprintf(message_, sizeof message_, "%s", api_.GetErrorMessage(status));
    api_.ReleaseStatus(status);
    return message_;
  }

 private:
  const OrtApi& api_;
  OrtSession* session_;
  OrtOwned<OrtIoBinding> binding_;
  Device& device_;
  char message_[512] = "";
};

class OrtEngine final : public Engine {
 public:
  OrtEngine(const OrtLibrary& library, const OrtSessionOptions* options, const Stage& stage, const std::string& name,
            const std::string& file, const OrtPlace& place)
      : library_(library),
        api_(library.api()),
        stage_(stage),
        name_(name),
        place_(place),
        session_(nullptr, {api_.ReleaseSession}) {
    OrtSession* session = nullptr;
    library.check(api_.CreateSession(library.environment(), file.c_str(), options, &session),
                  name_ + " cannot be loaded");
    session_.reset(session);
  }

  size_t scratch() const override { return 0; }

  std::string uncapturable(Stream) override { return "ONNX Runtime allocates while it runs"; }

  std::unique_ptr<BoundCall> bind(const std::vector<Address>& inputs, const std::vector<Address>& outputs,
                                  void*) override {
    OrtIoBinding* binding = nullptr;
    check(api_.CreateIoBinding(session_.get(), &binding));
    OrtOwned<OrtIoBinding> owned(binding, {api_.ReleaseIoBinding});
    size_t input_count = 0, output_count = 0;
    check(api_.SessionGetInputCount(session_.get(), &input_count));
    check(api_.SessionGetOutputCount(session_.get(), &output_count));
    if (input_count != inputs.size() || output_count != outputs.size()) throw other("tensors");
    for (size_t i = 0; i < inputs.size(); ++i) {
      const OrtOwned<OrtValue> value = tensor(i, true, stage_.inputs, inputs);
      check(api_.BindInput(binding, name_of(i, true).c_str(), value.get()));
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      const OrtOwned<OrtValue> value = tensor(i, false, stage_.outputs, outputs);
      check(api_.BindOutput(binding, name_of(i, false).c_str(), value.get()));
    }
    return std::make_unique<OrtCall>(api_, session_.get(), std::move(owned), place_.device);
  }

 private:
  void check(OrtStatus* status) const { library_.check(status, name_ + " cannot be used"); }

  // what: in which the graph differs.
  Error other(const std::string& what) const {
    return Error(Code::kIncompatible, text(name_, " has other ", what, " than the manifest says"))
        .hint("page4d-export again");
  }

  std::string name_of(size_t number, bool is_input) const {
    OrtAllocator* allocator = nullptr;
    check(api_.GetAllocatorWithDefaultOptions(&allocator));
    char* characters = nullptr;
    const auto get = is_input ? api_.SessionGetInputName : api_.SessionGetOutputName;
    check(get(session_.get(), number, allocator, &characters));
    const std::string name = characters;
    check(api_.AllocatorFree(allocator, characters));
    return name;
  }

  // The session's input or output of this number, over its address. Its shape may be a view of the stage's.
  OrtOwned<OrtValue> tensor(size_t number, bool is_input, const std::vector<TensorSpec>& specs,
                            const std::vector<Address>& addresses) const {
    const std::string name = name_of(number, is_input);
    const auto spec =
        std::find_if(specs.begin(), specs.end(), [&](const TensorSpec& tensor) { return tensor.binding() == name; });
    const auto address =
        std::find_if(addresses.begin(), addresses.end(), [&](const Address& entry) { return entry.first == name; });
    if (spec == specs.end() || address == addresses.end()) throw other("tensors");
    OrtTypeInfo* info = nullptr;
    const auto get = is_input ? api_.SessionGetInputTypeInfo : api_.SessionGetOutputTypeInfo;
    check(get(session_.get(), number, &info));
    const OrtOwned<OrtTypeInfo> owned_info(info, {api_.ReleaseTypeInfo});
    const OrtTensorTypeAndShapeInfo* type_and_shape = nullptr;
    check(api_.CastTypeInfoToTensorInfo(info, &type_and_shape));
    if (type_and_shape == nullptr) throw other("types");
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    check(api_.GetTensorElementType(type_and_shape, &type));
    size_t rank = 0;
    check(api_.GetDimensionsCount(type_and_shape, &rank));
    std::vector<int64_t> shape(rank);
    check(api_.GetDimensions(type_and_shape, shape.data(), rank));
    int64_t count = 1;
    for (int64_t side : shape) {
      if (side < 1 || side > spec->count() / count) throw other("shapes");  // also a side that is not fixed
      count *= side;
    }
    if (count != spec->count() || type != onnx_type_of(spec->dtype)) throw other("types or shapes");
    OrtMemoryInfo* memory = nullptr;
    check(api_.CreateMemoryInfo(place_.memory, OrtArenaAllocator, place_.number, OrtMemTypeDefault, &memory));
    const OrtOwned<OrtMemoryInfo> owned_memory(memory, {api_.ReleaseMemoryInfo});
    OrtValue* value = nullptr;
    const size_t bytes = static_cast<size_t>(count) * bytes_of(spec->dtype);
    check(api_.CreateTensorWithDataAsOrtValue(memory, address->second, bytes, shape.data(), rank, type, &value));
    return OrtOwned<OrtValue>(value, {api_.ReleaseValue});
  }

  const OrtLibrary& library_;
  const OrtApi& api_;
  const Stage& stage_;
  const std::string name_;  // of the graph's file
  const OrtPlace place_;
  OrtOwned<OrtSession> session_;
};

}  // namespace

std::unique_ptr<Engine> ort_engine(const OrtLibrary& library, const OrtSessionOptions* options, const Stage& stage,
                                   const std::string& name, const std::string& file, const OrtPlace& place) {
  return std::make_unique<OrtEngine>(library, options, stage, name, file, place);
}

}  // namespace page4d
