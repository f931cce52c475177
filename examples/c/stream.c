/* Run a causal model (.tflite) over a recording, step by step, its state carried from call to call.
 *
 *     stream MODEL.tflite RECORDING.wav
 *
 * The recording is 16-bit PCM, mono, at the rate of the model. A line is printed for each step: the
 * time of its end in seconds, and the probability of each class. What runs is LiteRT's own library;
 * the few functions that are needed of it are declared below, from its documentation, since its
 * Python package has the library and no headers (link with libLiteRt.so, see README.md).
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct LiteRtEnvironmentT *LiteRtEnvironment;
typedef struct LiteRtModelT *LiteRtModel;
typedef struct LiteRtOptionsT *LiteRtOptions;
typedef struct LiteRtCompiledModelT *LiteRtCompiledModel;
typedef struct LiteRtSignatureT *LiteRtSignature;
typedef struct LiteRtTensorT *LiteRtTensor;
typedef struct LiteRtTensorBufferT *LiteRtTensorBuffer;
typedef struct LiteRtTensorBufferRequirementsT *LiteRtTensorBufferRequirements;
/* The library fills it in and reads it; only its size, with room to spare, matters here. */
typedef struct { uint64_t opaque[32]; } LiteRtRankedTensorType;

enum { ACCELERATOR_CPU = 1, HOST_MEMORY = 1, LOCK_READ = 0, LOCK_WRITE = 1 };

int LiteRtCreateEnvironment(int count, const void *options, LiteRtEnvironment *environment);
int LiteRtCreateModelFromFile(LiteRtEnvironment, const char *path, LiteRtModel *model);
int LiteRtCreateOptions(LiteRtOptions *options);
int LiteRtSetOptionsHardwareAccelerators(LiteRtOptions options, int accelerators);
int LiteRtCreateCompiledModel(LiteRtEnvironment, LiteRtModel, LiteRtOptions, LiteRtCompiledModel *);
int LiteRtGetModelSignature(LiteRtModel model, size_t index, LiteRtSignature *signature);
int LiteRtGetNumSignatureInputs(LiteRtSignature signature, size_t *count);
int LiteRtGetNumSignatureOutputs(LiteRtSignature signature, size_t *count);
int LiteRtGetSignatureInputName(LiteRtSignature signature, size_t index, const char **name);
int LiteRtGetSignatureOutputName(LiteRtSignature signature, size_t index, const char **name);
int LiteRtGetSignatureInputTensorByIndex(LiteRtSignature, size_t index, LiteRtTensor *tensor);
int LiteRtGetSignatureOutputTensorByIndex(LiteRtSignature, size_t index, LiteRtTensor *tensor);
int LiteRtGetRankedTensorType(LiteRtTensor tensor, LiteRtRankedTensorType *type);
int LiteRtGetCompiledModelInputBufferRequirements(LiteRtCompiledModel, size_t signature,
                                                  size_t index, LiteRtTensorBufferRequirements *);
int LiteRtGetCompiledModelOutputBufferRequirements(LiteRtCompiledModel, size_t signature,
                                                   size_t index, LiteRtTensorBufferRequirements *);
int LiteRtGetTensorBufferRequirementsBufferSize(LiteRtTensorBufferRequirements, size_t *bytes);
int LiteRtCreateManagedTensorBuffer(LiteRtEnvironment, int type, const LiteRtRankedTensorType *,
                                    size_t bytes, LiteRtTensorBuffer *buffer);
int LiteRtGetTensorBufferPackedSize(LiteRtTensorBuffer buffer, size_t *bytes);
int LiteRtLockTensorBuffer(LiteRtTensorBuffer buffer, void **address, int mode);
int LiteRtUnlockTensorBuffer(LiteRtTensorBuffer buffer);
int LiteRtRunCompiledModel(LiteRtCompiledModel, size_t signature, size_t inputs,
                           LiteRtTensorBuffer *in, size_t outputs, LiteRtTensorBuffer *out);

enum { MOST = 24 }; /* inputs or outputs: two states for each layer, and the sound */

typedef struct {
    size_t count;
    const char *names[MOST];
    LiteRtTensorBuffer buffers[MOST];
    size_t bytes[MOST];
} Side;

static void check(int status, const char *what)
{
    if (status != 0) {
        fprintf(stderr, "stream: %s failed with status %d of LiteRT\n", what, status);
        exit(1);
    }
}

/* Make the buffers of all inputs, or of all outputs, filled with zeros: the first state. */
static void make_buffers(Side *side, int is_input, LiteRtEnvironment environment,
                         LiteRtCompiledModel compiled, LiteRtSignature signature)
{
    check(is_input ? LiteRtGetNumSignatureInputs(signature, &side->count)
                   : LiteRtGetNumSignatureOutputs(signature, &side->count), "the signature");
    if (side->count > MOST) {
        fprintf(stderr, "stream: expected at most %d tensors, got %zu\n", MOST, side->count);
        exit(1);
    }
    for (size_t i = 0; i < side->count; i++) {
        LiteRtTensor tensor;
        LiteRtRankedTensorType type = {{0}};
        LiteRtTensorBufferRequirements needed;
        size_t bytes;
        void *memory;
        if (is_input) {
            check(LiteRtGetSignatureInputName(signature, i, &side->names[i]), "a name");
            check(LiteRtGetSignatureInputTensorByIndex(signature, i, &tensor), "a tensor");
            check(LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, i, &needed), "a size");
        } else {
            check(LiteRtGetSignatureOutputName(signature, i, &side->names[i]), "a name");
            check(LiteRtGetSignatureOutputTensorByIndex(signature, i, &tensor), "a tensor");
            check(LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, i, &needed), "a size");
        }
        check(LiteRtGetRankedTensorType(tensor, &type), "a type");
        check(LiteRtGetTensorBufferRequirementsBufferSize(needed, &bytes), "a size");
        check(LiteRtCreateManagedTensorBuffer(environment, HOST_MEMORY, &type, bytes,
                                              &side->buffers[i]), "a buffer");
        check(LiteRtGetTensorBufferPackedSize(side->buffers[i], &side->bytes[i]), "a size");
        check(LiteRtLockTensorBuffer(side->buffers[i], &memory, LOCK_WRITE), "a buffer");
        memset(memory, 0, bytes);
        check(LiteRtUnlockTensorBuffer(side->buffers[i]), "a buffer");
    }
}

static size_t find(const Side *side, const char *name)
{
    for (size_t i = 0; i < side->count; i++)
        if (strcmp(side->names[i], name) == 0)
            return i;
    fprintf(stderr, "stream: expected a causal model, with a tensor %s, got one without\n", name);
    exit(1);
}

/* The samples of a WAV file of 16-bit PCM, mono. */
static int16_t *read_wav(const char *path, size_t *count, uint32_t *rate)
{
    FILE *file = fopen(path, "rb");
    uint8_t head[12], chunk[8], format[16] = {0};
    int16_t *samples = NULL;
    *count = 0;
    if (file && fread(head, 1, 12, file) == 12 && !memcmp(head, "RIFF", 4) &&
        !memcmp(head + 8, "WAVE", 4)) {
        while (!samples && fread(chunk, 1, 8, file) == 8) {
            uint32_t size = chunk[4] | chunk[5] << 8 | chunk[6] << 16 | (uint32_t)chunk[7] << 24;
            if (!memcmp(chunk, "fmt ", 4) && size >= 16 && fread(format, 1, 16, file) == 16) {
                fseek(file, (long)(size - 16 + size % 2), SEEK_CUR);
            } else if (!memcmp(chunk, "data", 4) && format[2] == 1 && format[14] == 16) {
                samples = malloc(size + 2);
                *count = samples ? fread(samples, 2, size / 2, file) : 0;
            } else {
                fseek(file, (long)(size + size % 2), SEEK_CUR);
            }
        }
    }
    if (file)
        fclose(file);
    if (!samples || format[0] != 1) {
        fprintf(stderr, "stream: %s: expected a WAV file of 16-bit PCM, mono\n", path);
        exit(1);
    }
    *rate = format[4] | format[5] << 8 | format[6] << 16 | (uint32_t)format[7] << 24;
    return samples;
}

int main(int argc, char **argv)
{
    LiteRtEnvironment environment;
    LiteRtModel model;
    LiteRtOptions options;
    LiteRtCompiledModel compiled;
    LiteRtSignature signature;
    Side in, out;
    size_t count;
    uint32_t rate;

    if (argc != 3) {
        fprintf(stderr, "usage: stream MODEL.tflite RECORDING.wav\n");
        return 2;
    }
    int16_t *samples = read_wav(argv[2], &count, &rate);
    check(LiteRtCreateEnvironment(0, NULL, &environment), "the environment");
    check(LiteRtCreateModelFromFile(environment, argv[1], &model), argv[1]);
    check(LiteRtCreateOptions(&options), "the options");
    check(LiteRtSetOptionsHardwareAccelerators(options, ACCELERATOR_CPU), "the options");
    check(LiteRtCreateCompiledModel(environment, model, options, &compiled), argv[1]);
    check(LiteRtGetModelSignature(model, 0, &signature), "the signature");
    make_buffers(&in, 1, environment, compiled, signature);
    make_buffers(&out, 0, environment, compiled, signature);

    size_t waveform = find(&in, "waveform"), answers = find(&out, "probabilities");
    size_t step = in.bytes[waveform] / sizeof(float);
    size_t n_classes = out.bytes[answers] / sizeof(float);
    size_t next_of[MOST]; /* which output is the next state of an input */
    for (size_t i = 0; i < in.count; i++) {
        char name[256] = "next_";
        if (i != waveform) {
            strncat(name, in.names[i] + strlen("state_"), sizeof name - 6);
            next_of[i] = find(&out, name);
        }
    }
    for (size_t first = 0; first + step <= count; first += step) {
        float *memory;
        check(LiteRtLockTensorBuffer(in.buffers[waveform], (void **)&memory, LOCK_WRITE), "sound");
        for (size_t i = 0; i < step; i++)
            memory[i] = (float)samples[first + i] / 32768.0f;
        check(LiteRtUnlockTensorBuffer(in.buffers[waveform]), "the sound");
        check(LiteRtRunCompiledModel(compiled, 0, in.count, in.buffers, out.count, out.buffers),
              "a step");
        check(LiteRtLockTensorBuffer(out.buffers[answers], (void **)&memory, LOCK_READ), "answers");
        printf("%.3f", (double)(first + step) / rate);
        for (size_t i = 0; i < n_classes; i++)
            printf(" %.7f", (double)memory[i]);
        printf("\n");
        check(LiteRtUnlockTensorBuffer(out.buffers[answers]), "the answers");
        for (size_t i = 0; i < in.count; i++) /* the next state becomes the state: no copy */
            if (i != waveform) {
                LiteRtTensorBuffer old = in.buffers[i];
                in.buffers[i] = out.buffers[next_of[i]];
                out.buffers[next_of[i]] = old;
            }
    }
    free(samples);
    return 0;
}
