"""Residual slots: how a sublayer joins the stream."""
