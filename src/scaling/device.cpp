#include "scaling/device.hpp"

namespace varscale::scaling {

const std::vector<Device>& known_devices() {
  // A name that begins another stands after it.
  static const std::vector<Device> devices{
      {"a100", "NVIDIA A100", 312e12, 19.5e12, 80e9},
      {"h100-pcie", "NVIDIA H100 PCIe", 756e12, 51e12, 80e9},
      {"h100-nvl", "NVIDIA H100 NVL", 835e12, 60e12, 94e9},
      {"h100", "NVIDIA H100", 989e12, 67e12, 80e9},
      {"h200", "NVIDIA H200", 989e12, 67e12, 141e9},
      {"b200", "NVIDIA B200", 2250e12, 75e12, 180e9},
      {"gb200", "NVIDIA GB200", 2500e12, 80e12, 186e9},
  };
  return devices;
}

const Device* find_device(std::string_view name) {
  for (const Device& device : known_devices())
    if (name == device.name) return &device;
  return nullptr;
}

const Device* device_of(std::string_view driver_name) {
  for (const Device& device : known_devices())
    if (driver_name.starts_with(device.driver_name)) return &device;
  return nullptr;
}

}  // namespace varscale::scaling
