"""The explicit gradients of every VAE: deep, convolutional, with K samples, free bits, IWAE.

The layers' gradients are those of ``models/by_hand.py``; this file adds the reparametrization and
the loss. Each sample z_k has a weight ρ_k = −dL/d ln p(x|z_k): 1/(KN) for the ELBO, the normalised
importance weights divided by N for the IWAE (Burda et al. 2016, section 3).
"""

import numpy as np

from ..by_hand import backward, forward


def gradients(model, x, eps):
    """(terms, name → array) of ``VAE.loss``; x (N, D), eps (K·N, Z), sample k in rows kN … kN+N−1.
    """
    weight, k = x.dtype.type(model.kl_weight()), len(eps) // len(x)
    # forward
    h, encoder_cache = forward(model.encoder, x)
    m, mean_cache = forward(model.mean, h)
    v, logvar_cache = forward(model.logvar, h)
    m_k, v_k = np.tile(m, (k, 1)), np.tile(v, (k, 1))
    noise = np.exp(v_k / 2) * eps
    z = m_k + noise                                        # the reparametrization
    g, hidden_cache = forward(model.hidden, z)
    output, decoder_cache = forward(model.decoder, g)
    log_p, slope, parameter_slopes = model.likelihood.log_p_and_gradients(
        np.tile(x, (k, 1)), output)
    # dL/dz through the decoder, with dL/d ln p(x|z_k) = −ρ_k
    terms, rho, dz, dm, dv = objective(model, weight, log_p, z, m, v, eps)
    found = {"likelihood": {name: np.array([-np.sum(rho * s)])
                            for name, s in parameter_slopes.items()}}
    found["decoder"], dg = backward(model.decoder, decoder_cache, -rho[:, None] * slope)
    found["hidden"], dz_decoder = backward(model.hidden, hidden_cache, dg)
    dz = dz + dz_decoder
    # through z = m + e^(v/2) ε:   ∂z/∂m = 1,   ∂z/∂v = ½ e^(v/2) ε, summed over the samples
    dm = dm + dz.reshape(k, *m.shape).sum(axis=0)
    dv = dv + (dz * noise / 2).reshape(k, *m.shape).sum(axis=0)
    # the encoder, where both branches meet
    found["mean"], dh = backward(model.mean, mean_cache, dm)
    found["logvar"], dh_logvar = backward(model.logvar, logvar_cache, dv)
    found["encoder"], _ = backward(model.encoder, encoder_cache, dh + dh_logvar)
    wanted = model.named_parameters()
    named = {f"{part}.{name}": g for part, grads in found.items()
             for name, g in grads.items()}
    return terms, {name: named[name] for name in wanted}


def objective(model, weight, log_p, z, m, v, eps):
    """(terms, ρ (K·N,), dz, dm, dv): all gradients that do not pass through the decoder."""
    n, k = m.dtype.type(len(m)), len(eps) // len(m)
    kl = (m**2 + np.exp(v) - v - 1) / 2                    # (N, Z)
    terms = {"reconstruction": -log_p.sum() / (n * k), "kl": kl.sum() / n}
    if model.config.objective == "iwae":
        # ln w_k = ln p(x|z_k) + weight [ln p(z_k) − ln q(z_k|x)];  L = −mean_n ln (1/K) Σ_k w_k
        log_ratio = (eps**2 + np.tile(v, (k, 1)) - z**2).sum(axis=1) / 2
        log_w = (log_p + weight * log_ratio).reshape(k, -1)
        largest = log_w.max(axis=0)
        w = np.exp(log_w - largest)
        bound = largest + np.log(w.mean(axis=0))
        rho = (w / w.sum(axis=0) / n).reshape(-1)
        dv = -weight * rho.reshape(k, -1).sum(axis=0)[:, None] / 2 * np.ones_like(v)
        return {"loss": -bound.sum() / n, **terms}, rho, weight * rho[:, None] * z, 0, dv
    # L = reconstruction + weight Σ_j max(kl_j, λ), kl_j the batch's mean: no gradient if kl_j < λ
    free = m.dtype.type(model.config.free_bits)
    per_dimension = kl.sum(axis=0) / n
    above = (per_dimension >= free).astype(m.dtype)
    terms = {"loss": terms["reconstruction"] + weight * np.maximum(per_dimension, free).sum(),
             **terms}
    rho = np.full(len(eps), 1 / (n * k), m.dtype)
    return terms, rho, 0, weight * above * m / n, weight * above * (np.exp(v) - 1) / 2 / n
