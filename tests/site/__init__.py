"""Tests of a site's proxies, mirrors and registries."""
