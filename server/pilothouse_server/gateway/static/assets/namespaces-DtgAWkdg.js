import{e}from"./namespace_pb-BzmMadyI.js";import{H as a}from"./index-rp4WbzCS.js";const o=a(e);export{o as n};
