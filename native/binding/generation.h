// Owns: generate() and generateTogether() of src/engine/addonTypes.ts: their options, their token batches and what they
// end with.
#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "../engine.h"
#include "background_call.h"
#include "session_object.h"

namespace ringside::binding {

Result<GenerateOptions> to_generate_options(Napi::Value value);

// On the thread that has the turn.
BackgroundCall::Settle run_generate(SessionCore& core, BackgroundCall& call, const GenerateOptions& options);
BackgroundCall::Settle run_together(const std::vector<std::shared_ptr<SessionCore>>& cores, BackgroundCall& call,
                                    const std::vector<GenerateOptions>& options);

// generateTogether() of NativeAddon.
Napi::Value generate_together(const Napi::CallbackInfo& info);

}  // namespace ringside::binding
