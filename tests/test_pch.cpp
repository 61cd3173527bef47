#include "tests/test_pch.hpp"
