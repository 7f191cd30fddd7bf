// Adapters from float32 into slots.
#include <algorithm>
#include <cmath>
#include <utility>

#include "model.h"

namespace mbpm {

Adapter::Adapter(std::shared_ptr<Model> model, const std::vector<Pair>& pairs)
    : model_(std::move(model)),
      parts_(size_t(model_->shape.layers) * PROJECTIONS),
      shared_(size_t(model_->shape.layers) * GROUPS) {
    // a slot has room for every projection at its rank class, so that any adapter of that class
    // fits in any slot of it
    int rank = 8;
    for (const auto& p : pairs) rank = std::max(rank, (p.rank + 7) / 8 * 8);
    size_t halves = 0, floats = 0;
    for (int p = 0; p < PROJECTIONS; p++) {
        const Matrix& m = model_->matrix(0, Projection(p));
        halves += size_t(rank) * (size_t(m.columns) + size_t(m.tiles()) * TILE);
        floats += size_t(rank);
    }
    const size_t layers = size_t(model_->shape.layers);
    slot_ = model_->take_slot(layers * (halves * 2 + floats * 4));
    auto* gain = reinterpret_cast<float*>(slot_->data());
    auto* to = reinterpret_cast<uint16_t*>(slot_->data() + layers * floats * 4);

    std::vector<const Pair*> of(layers * PROJECTIONS, nullptr);
    for (const auto& p : pairs) of[size_t(p.layer) * PROJECTIONS + p.projection] = &p;
    // the power of two that brings the largest value into [0.5, 1); 2^-e has to stay finite
    auto norm = [](const float* from, size_t n) {
        float most = 0;
        for (size_t i = 0; i < n; i++) most = std::max(most, std::fabs(from[i]));
        int e = 0;
        std::frexp(most, &e);
        return std::max(e, -126);
    };
    for (size_t layer = 0; layer < layers; layer++)
        for (int g = 0; g < GROUPS; g++) {
            Shared& shared = shared_[layer * GROUPS + size_t(g)];
            shared.a = to;
            shared.gain = gain;
            std::vector<std::pair<Part*, const Pair*>> pairs_of;
            int columns = 0;
            for (int p = 0; p < PROJECTIONS; p++) {
                const Pair* pair = of[layer * PROJECTIONS + size_t(p)];
                if (GROUP_OF[p] != g || !pair) continue;
                Part& part = parts_[layer * PROJECTIONS + size_t(p)];
                part.rank = pair->rank;
                part.offset = shared.rank;
                shared.rank += pair->rank;
                columns = model_->in_features(Projection(p));
                pairs_of.emplace_back(&part, pair);
            }
            most_rank_ = std::max(most_rank_, shared.rank);
            uint16_t* a = to;
            to += size_t(shared.rank) * columns;
            for (auto [part, pair] : pairs_of) {
                const int rank = pair->rank, rows = model_->matrix(int(layer), pair->projection).rows;
                const int ea = norm(pair->a, size_t(rank) * columns), eb = norm(pair->b, size_t(rank) * rows);
                const float down_a = std::ldexp(1.0f, -ea), down_b = std::ldexp(1.0f, -eb);
                for (int r = 0; r < rank; r++) {
                    *gain++ = std::ldexp(pair->gain, ea + eb);
                    const float* from = pair->a + size_t(r) * columns;
                    for (int c = 0; c < columns; c += TILE) {
                        uint16_t* at = a + shrink_at(shared.rank, columns, part->offset + r, c);
                        for (int i = 0; i < TILE; i++) at[i] = float_to_half(from[c + i] * down_a);
                    }
                }
                part->b = to;
                for (int row = 0; row < rows; row += TILE)
                    for (int r = 0; r < rank; r++)
                        for (int i = row; i < row + TILE; i++)
                            *to++ = i < rows ? float_to_half(pair->b[size_t(i) * rank + r] * down_b) : 0;
            }
        }
}

Adapter::~Adapter() {
    model_->quiesce();
    model_->give_slot(std::move(slot_));
}

}  // namespace mbpm
