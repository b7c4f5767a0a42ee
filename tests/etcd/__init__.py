"""Tests of what is to be known of etcd before its members come or go."""
