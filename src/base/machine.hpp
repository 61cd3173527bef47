// What this machine is.
#pragma once

#include <cstdint>
#include <string>

namespace varscale::base {

// Memory of the whole machine; 0 where the system does not say.
double machine_memory_bytes();
// Of this process: what the kernel holds for it in memory now.
int64_t resident_bytes();
std::string host_name();
// "AMD EPYC 9454P 48-Core Processor"; "unknown CPU" where the system does not say.
std::string cpu_name();

}  // namespace varscale::base
