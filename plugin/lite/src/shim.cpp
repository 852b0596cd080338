// An interpreter of one model, on TensorFlow Lite's C interface: here C++ exceptions end, and here everything that
// belongs to a model is freed, on every path. Its counterpart is native.rs, which says what a caller has to keep to.

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <memory>

// TensorFlow Lite's C interface (2.17), as far as it is used.
extern "C" {
struct TfLiteModel;
struct TfLiteInterpreterOptions;
struct TfLiteInterpreter;
struct TfLiteTensor;
struct TfLiteDelegate;

TfLiteModel* TfLiteModelCreateWithErrorReporter(const void* data, size_t size,
                                                void (*report)(void*, const char*, va_list), void* reporter);
void TfLiteModelDelete(TfLiteModel*);
TfLiteInterpreterOptions* TfLiteInterpreterOptionsCreate();
void TfLiteInterpreterOptionsDelete(TfLiteInterpreterOptions*);
void TfLiteInterpreterOptionsSetNumThreads(TfLiteInterpreterOptions*, int32_t threads);
void TfLiteInterpreterOptionsAddDelegate(TfLiteInterpreterOptions*, TfLiteDelegate*);
void TfLiteInterpreterOptionsSetErrorReporter(TfLiteInterpreterOptions*, void (*report)(void*, const char*, va_list),
                                              void* reporter);
TfLiteInterpreter* TfLiteInterpreterCreate(const TfLiteModel*, const TfLiteInterpreterOptions*);
void TfLiteInterpreterDelete(TfLiteInterpreter*);
int TfLiteInterpreterAllocateTensors(TfLiteInterpreter*);
int TfLiteInterpreterInvoke(TfLiteInterpreter*);
int TfLiteInterpreterResizeInputTensor(TfLiteInterpreter*, int32_t index, const int* dims, int32_t count);
int32_t TfLiteInterpreterGetInputTensorCount(const TfLiteInterpreter*);
int32_t TfLiteInterpreterGetOutputTensorCount(const TfLiteInterpreter*);
TfLiteTensor* TfLiteInterpreterGetInputTensor(const TfLiteInterpreter*, int32_t index);
const TfLiteTensor* TfLiteInterpreterGetOutputTensor(const TfLiteInterpreter*, int32_t index);
void* TfLiteTensorData(const TfLiteTensor*);
size_t TfLiteTensorByteSize(const TfLiteTensor*);

// The first two members are those of 2.17; what follows is as the default says.
struct TfLiteXNNPackDelegateOptions {
    int32_t threads;
    uint32_t flags;
    unsigned char rest[248];
};
TfLiteXNNPackDelegateOptions TfLiteXNNPackDelegateOptionsDefault();
TfLiteDelegate* TfLiteXNNPackDelegateCreate(const TfLiteXNNPackDelegateOptions*);
void TfLiteXNNPackDelegateDelete(TfLiteDelegate*);
}

namespace {

// What is said is for developers of models, and says it in no words of ours.
void say_nothing(void*, const char*, va_list) {}

template <auto function>
struct Deleter {
    template <typename T>
    void operator()(T* pointer) const {
        function(pointer);
    }
};

using Model = std::unique_ptr<TfLiteModel, Deleter<TfLiteModelDelete>>;
using Options = std::unique_ptr<TfLiteInterpreterOptions, Deleter<TfLiteInterpreterOptionsDelete>>;
using Delegate = std::unique_ptr<TfLiteDelegate, Deleter<TfLiteXNNPackDelegateDelete>>;
using Interpreter = std::unique_ptr<TfLiteInterpreter, Deleter<TfLiteInterpreterDelete>>;

// XNNPACK, for operations on floats. Quantised ones are left to the kernels that every runtime has, which give the
// same numbers everywhere.
Delegate xnnpack(int32_t threads) {
    constexpr uint32_t kQuantised = 3;
    TfLiteXNNPackDelegateOptions options = TfLiteXNNPackDelegateOptionsDefault();
    if (options.flags != kQuantised) return nullptr;  // Other members than those of 2.17.
    options.threads = threads;
    options.flags = 0;
    return Delegate(TfLiteXNNPackDelegateCreate(&options));
}

}  // namespace

// Members are freed from the last to the first: each needs those before it.
struct LiteInterpreter {
    Model model;
    Delegate delegate;
    Interpreter interpreter;
};

namespace {

std::unique_ptr<LiteInterpreter> open(const void* data, size_t size, int32_t threads) {
    auto made = std::make_unique<LiteInterpreter>();
    made->model.reset(TfLiteModelCreateWithErrorReporter(data, size, say_nothing, nullptr));
    if (!made->model) return nullptr;
    Options options(TfLiteInterpreterOptionsCreate());
    if (!options) return nullptr;
    TfLiteInterpreterOptionsSetErrorReporter(options.get(), say_nothing, nullptr);
    TfLiteInterpreterOptionsSetNumThreads(options.get(), threads);
    made->delegate = xnnpack(threads);
    if (made->delegate) TfLiteInterpreterOptionsAddDelegate(options.get(), made->delegate.get());
    made->interpreter.reset(TfLiteInterpreterCreate(made->model.get(), options.get()));
    if (!made->interpreter) return nullptr;
    if (TfLiteInterpreterAllocateTensors(made->interpreter.get()) != 0) return nullptr;
    return made;
}

// Does something that may throw; false if it did, or failed.
template <typename Do>
bool guarded(Do does) noexcept {
    try {
        return does();
    } catch (...) {
        return false;
    }
}

bool describe(const TfLiteTensor* tensor, unsigned char** data, size_t* size) {
    if (tensor == nullptr) return false;
    *data = static_cast<unsigned char*>(TfLiteTensorData(tensor));
    *size = TfLiteTensorByteSize(tensor);
    return true;
}

}  // namespace

extern "C" {

LiteInterpreter* lite_open(const void* data, size_t size, int32_t threads) {
    LiteInterpreter* made = nullptr;
    guarded([&] { return (made = open(data, size, threads).release()) != nullptr; });
    return made;
}

void lite_close(LiteInterpreter* lite) {
    guarded([&] { return delete lite, true; });
}

bool lite_allocate(LiteInterpreter* lite) {
    return guarded([&] { return TfLiteInterpreterAllocateTensors(lite->interpreter.get()) == 0; });
}

bool lite_invoke(LiteInterpreter* lite) {
    return guarded([&] { return TfLiteInterpreterInvoke(lite->interpreter.get()) == 0; });
}

bool lite_resize_input(LiteInterpreter* lite, int32_t index, const int32_t* dims, int32_t count) {
    return guarded(
        [&] { return TfLiteInterpreterResizeInputTensor(lite->interpreter.get(), index, dims, count) == 0; });
}

int32_t lite_inputs(const LiteInterpreter* lite) {
    return TfLiteInterpreterGetInputTensorCount(lite->interpreter.get());
}

int32_t lite_outputs(const LiteInterpreter* lite) {
    return TfLiteInterpreterGetOutputTensorCount(lite->interpreter.get());
}

bool lite_input(const LiteInterpreter* lite, int32_t index, unsigned char** data, size_t* size) {
    return describe(TfLiteInterpreterGetInputTensor(lite->interpreter.get(), index), data, size);
}

bool lite_output(const LiteInterpreter* lite, int32_t index, unsigned char** data, size_t* size) {
    return describe(TfLiteInterpreterGetOutputTensor(lite->interpreter.get(), index), data, size);
}

// Makes what is made once for a process, and says so on standard error.
void lite_warm_up() {
    guarded([] { return xnnpack(1) != nullptr; });
}
}
