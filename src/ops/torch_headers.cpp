// The precompiled header lmfusion_torch_headers needs a source to belong to.
