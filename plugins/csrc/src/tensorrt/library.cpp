// The symbols that TensorRT looks up in a plugin library, and one for a runtime that compares plans with the library.
// Nothing else is exported.
#include "kernels/kernel_table.h"
#include "tensorrt/creator.h"
#include "tensorrt/log.h"

#define PAGE4D_EXPORT extern "C" __attribute__((visibility("default")))

PAGE4D_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);
PAGE4D_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
// sha256 of the source of its kernels.
PAGE4D_EXPORT const char* page4d_plugins_kernels();

nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static page4d::plugin::Creator biased(page4d::plugin::Op::kBiasedAttention);
  static page4d::plugin::Creator segment(page4d::plugin::Op::kSegmentAttention);
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&biased, &segment};
  count = 2;
  return creators;
}

void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { page4d::plugin::find_logger_with(finder); }

// A plan runs only with the kernels with which it was built.
const char* page4d_plugins_kernels() { return page4d::plugin::kEmbeddedSource; }
