import{e}from"./namespace_pb-s9Qf39-8.js";import{H as a}from"./index-CkPoOB6a.js";const o=a(e);export{o as n};
