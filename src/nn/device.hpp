// The device that a model is on: its name, its memory, the bytes of tensors there, and how it computes.
//
//   repeatable_cuda();                                    // once, before the first product
//   count_cpu_memory();                                   // once, before the tensors that shall count
//   fmt::print("{} of {}", peak_bytes(device), memory_bytes(device));
//
// On a GPU the caching allocator counts by itself. On the CPU, tensors allocated after count_cpu_memory()
// count, of all threads of the process.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>

namespace varscale::nn {

// As the driver or the kernel has it: "NVIDIA H200", "AMD EPYC 9454P".
std::string device_name(at::Device device);
// Of a GPU as a whole, or of the machine; 0 where the system does not say.
double memory_bytes(at::Device device);

void count_cpu_memory();  // again: no effect
int64_t held_bytes(at::Device device);
int64_t peak_bytes(at::Device device);  // the most that was held since the last reset_peak()
void reset_peak(at::Device device);

// How often the process has been given new memory so far: by the driver, or on the CPU as page faults. Steps that use
// the same memory again add none.
int64_t new_memory_events(at::Device device);

// For GPUs, of the whole process: float32 products and convolutions in float32 (no TF32), and the same bits
// for the same calls, by kernels that add in a fixed order.
void repeatable_cuda();

// Waits until the device has done all it was given; nothing on the CPU.
void synchronise(at::Device device);

// Whether a small product still comes out right: after some errors a device answers nothing any more in this process.
bool device_works(at::Device device) noexcept;

// device_gpu.cpp, device_absent.cpp.
std::string gpu_name(c10::DeviceIndex index);

}  // namespace varscale::nn
