/* Resize JPEGs to SIDE x SIDE pixels with libjpeg-turbo and nothing else, and print the CPU seconds that took.

   usage: kernel ROUNDS FILE...

   Each file is decoded at the smallest scale of 1/8, 2/8, 4/8 and 8/8 that has twice the output's size, averaged over
   areas where it shrinks and interpolated where it grows, and encoded at quality 90. Nothing is written. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <jpeglib.h> /* uses FILE without including it */

enum { SIDE = 600, QUALITY = 90, MAX_TAPS = 64 };

typedef struct {
    int first, count;
    float weights[MAX_TAPS];
} Taps;

/* Set the weights with which `length` samples become SIDE samples. */
static void plan(Taps *taps, int length) {
    double scale = (double)length / SIDE;
    for (int i = 0; i < SIDE; i++) {
        Taps *t = &taps[i];
        double from = i * scale, to = (i + 1) * scale, total = 0;
        if (scale < 1) {
            double center = fmin(fmax((i + 0.5) * scale - 0.5, 0), length - 1);
            t->first = (int)center;
            t->count = t->first + 1 < length ? 2 : 1;
            t->weights[1] = (float)(center - t->first);
            t->weights[0] = 1 - (t->count == 2 ? t->weights[1] : 0);
            continue;
        }
        t->first = (int)from;
        t->count = 0;
        for (int j = t->first; j < length && j < to && t->count < MAX_TAPS; j++) {
            double part = fmin(j + 1, to) - fmax(j, from);
            t->weights[t->count++] = (float)part;
            total += part;
        }
        for (int j = 0; j < t->count; j++) t->weights[j] /= (float)total;
    }
}

static void resize(const unsigned char *in, int width, int height, unsigned char *out) {
    static Taps across[SIDE], down[SIDE];
    static float row[3 * SIDE], sums[3 * SIDE];
    plan(across, width);
    plan(down, height);
    for (int y = 0; y < SIDE; y++) {
        for (int i = 0; i < 3 * SIDE; i++) sums[i] = 0.5f;
        for (int k = 0; k < down[y].count; k++) {
            const unsigned char *line = in + 3L * width * (down[y].first + k);
            for (int x = 0; x < SIDE; x++) {
                const unsigned char *p = line + 3L * across[x].first;
                float r = 0, g = 0, b = 0;
                for (int j = 0; j < across[x].count; j++, p += 3) {
                    float w = across[x].weights[j];
                    r += w * p[0], g += w * p[1], b += w * p[2];
                }
                row[3 * x] = r, row[3 * x + 1] = g, row[3 * x + 2] = b;
            }
            float weight = down[y].weights[k];
            for (int i = 0; i < 3 * SIDE; i++) sums[i] += weight * row[i];
        }
        for (int i = 0; i < 3 * SIDE; i++) out[3L * SIDE * y + i] = (unsigned char)sums[i];
    }
}

static unsigned char *decode(unsigned char *data, unsigned long size, int *width, int *height) {
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    info.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, data, size);
    jpeg_read_header(&info, TRUE);
    info.scale_denom = 8;
    unsigned shorter = info.image_width < info.image_height ? info.image_width : info.image_height;
    for (info.scale_num = 1; info.scale_num < 8 && shorter * info.scale_num / 8 < 2 * SIDE;) info.scale_num *= 2;
    info.out_color_space = JCS_RGB;
    jpeg_start_decompress(&info);
    long stride = 3L * info.output_width;
    unsigned char *pixels = malloc(stride * info.output_height);
    while (info.output_scanline < info.output_height) {
        JSAMPROW line = pixels + stride * info.output_scanline;
        jpeg_read_scanlines(&info, &line, 1);
    }
    *width = info.output_width, *height = info.output_height;
    jpeg_finish_decompress(&info);
    jpeg_destroy_decompress(&info);
    return pixels;
}

static void encode(unsigned char *pixels) {
    struct jpeg_compress_struct info;
    struct jpeg_error_mgr errors;
    unsigned char *out = NULL;
    unsigned long size = 0;
    info.err = jpeg_std_error(&errors);
    jpeg_create_compress(&info);
    jpeg_mem_dest(&info, &out, &size);
    info.image_width = info.image_height = SIDE;
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, QUALITY, TRUE);
    jpeg_start_compress(&info, TRUE);
    while (info.next_scanline < SIDE) {
        JSAMPROW line = pixels + 3L * SIDE * info.next_scanline;
        jpeg_write_scanlines(&info, &line, 1);
    }
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    free(out);
}

int main(int count, char **arguments) {
    static unsigned char out[3L * SIDE * SIDE];
    for (int round = atoi(arguments[1]); round > 0; round--) {
        for (int i = 2; i < count; i++) {
            FILE *file = fopen(arguments[i], "rb");
            if (!file || fseek(file, 0, SEEK_END)) return perror(arguments[i]), 1;
            long size = ftell(file);
            unsigned char *data = malloc(size);
            rewind(file);
            if (fread(data, 1, size, file) != (size_t)size) return perror(arguments[i]), 1;
            fclose(file);
            int width, height;
            unsigned char *pixels = decode(data, size, &width, &height);
            resize(pixels, width, height, out);
            encode(out);
            free(pixels);
            free(data);
        }
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%f\n", usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
}
