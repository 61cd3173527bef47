// Precompiled by the target varscale_test_pch and reused by the test programs without torch.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plain_pch.hpp"
