// What the makers say of the devices that models are trained on.
//
//   const Device* h200 = find_device("h200");                        // a name of --device
//   const Device* same = device_of("NVIDIA H200");                   // what the driver calls it
//
// Dense peaks of the data sheets, without sparsity; fp32 outside the tensor cores. A device that is not
// in the table has no peak, and so no MFU.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace varscale::scaling {

struct Device {
  const char* name;             // in options
  const char* driver_name;      // begins the name that the driver reports
  double bf16_peak, fp32_peak;  // FLOP/s
  double memory_bytes;
  double peak(std::string_view precision) const {
    return precision == "bf16" ? bf16_peak : fp32_peak;
  }
};

const std::vector<Device>& known_devices();
const Device* find_device(std::string_view name);       // null: not in the table
const Device* device_of(std::string_view driver_name);  // null: not in the table

}  // namespace varscale::scaling
